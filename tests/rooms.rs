//! The rooms of a crate form no circle.
//!
//! A room is a module that stands in the crate's root: a file, or a directory. Cargo refuses a circle of crates; inside
//! a crate the compiler allows any, so this test reads the code of each crate of the workspace: its `use` lines, and
//! the paths that start with `crate`, `self` or `super`. A name that the root re-exports counts as its room's. What
//! the root defines itself counts as a room; its `pub use` lines are the crate's face, and no use.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, File, ImplItem, Item, ItemMod, ItemUse, Meta, Stmt, Token, UseTree, Visibility};

#[test]
fn the_rooms_of_each_crate_form_no_circle() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let members = std::fs::read_dir(workspace.join("crates")).unwrap();
    let mut crates: Vec<PathBuf> = members.map(|entry| entry.unwrap().path()).collect();
    crates.push(workspace.to_owned());
    crates.sort();

    let read = |path: &Path| std::fs::read_to_string(workspace.join(path)).ok();
    let mut complaints = Vec::new();
    for root in crates.iter().flat_map(|member| ["src/lib.rs", "src/main.rs"].map(|root| member.join(root))) {
        let root = root.strip_prefix(workspace).unwrap();
        if read(root).is_some() {
            complaints.extend(Graph::of(root, &read).complaints());
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n\n"));
}

/// docs/ARCHITECTURE.md lists the rooms of the library, each before those that it uses.
#[test]
fn the_order_in_the_documents_is_that_of_the_code() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(workspace.join("docs/ARCHITECTURE.md")).unwrap();
    let order = text
        .split("```")
        .find(|block| block.starts_with("text\nserver → "))
        .unwrap()
        .trim_start_matches("text");
    let ranks: Vec<Vec<&str>> = order
        .split("→")
        .map(|rooms| rooms.trim_matches(['{', ' ', '\n', '}']).split(", ").collect())
        .collect();
    let rank = |room: &str| ranks.iter().position(|rooms| rooms.contains(&room));

    let read = |path: &Path| std::fs::read_to_string(workspace.join(path)).ok();
    let graph = Graph::of(Path::new("crates/forkd-server/src/lib.rs"), &read);
    for ((from, to), lines) in &graph.uses {
        if let (Some(left), Some(right)) = (rank(from), rank(to)) {
            assert!(left < right, "{from} uses {to} against the order in docs/ARCHITECTURE.md: {lines:?}");
        }
    }
}

/// Which room uses which, and where.
#[derive(Default)]
struct Graph {
    root: PathBuf,
    uses: BTreeMap<(String, String), Vec<String>>,
    unknown: Vec<String>,
}

impl Graph {
    /// Reads a crate from its root file on.
    fn of(root: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Self {
        let mut graph = Self { root: root.to_owned(), ..Self::default() };
        let file = parse(root, read);
        let mut names = Names::of(&file);
        let mut files = vec![];
        for module in file.items.iter().filter_map(as_module) {
            find_files(root, &[], module, read, &mut files);
        }
        for (room, _, _, file) in &files {
            let macros = file.items.iter().filter_map(|item| match item {
                Item::Macro(it) if has(&it.attrs, "macro_export") => it.ident.as_ref(),
                _ => None,
            });
            names.0.extend(macros.map(|name| (name.to_string(), Origin::Room(room.clone()))));
        }
        Reader::new(&mut graph, &names, root, None, 0).visit_file(&file);
        for (room, depth, path, file) in &files {
            Reader::new(&mut graph, &names, path, Some(room), *depth).visit_file(file);
        }
        graph
    }

    /// A circle, and the lines of the one of its uses that has the fewest; and so on until none is left.
    fn complaints(&self) -> Vec<String> {
        let mut edges: BTreeSet<(&str, &str)> =
            self.uses.keys().map(|(from, to)| (from.as_str(), to.as_str())).collect();
        let mut complaints = self.unknown.clone();
        let lines = |(from, to): (&str, &str)| &self.uses[&(from.to_owned(), to.to_owned())];
        while let Some(edge @ (from, to)) = edges
            .iter()
            .copied()
            .filter(|(from, to)| way(&edges, to, from).is_some())
            .min_by_key(|&edge| lines(edge).len())
        {
            let circle = way(&edges, to, from).unwrap_or_default().join(" → ");
            let root = self.root.display();
            complaints.push(format!(
                "the rooms of {root} form a circle: {from} → {circle}\n  {from} uses {to} in\n    {}\n  \
                 Move what is used there to {from}, or to a room that both may use.",
                lines(edge).join("\n    ")
            ));
            edges.remove(&edge);
        }
        complaints
    }
}

/// The shortest way from a room to another, both included.
fn way<'a>(edges: &BTreeSet<(&'a str, &'a str)>, from: &'a str, to: &str) -> Option<Vec<&'a str>> {
    let (mut seen, mut ways) = (BTreeSet::from([from]), VecDeque::from([vec![from]]));
    while let Some(way) = ways.pop_front() {
        let last = *way.last()?;
        if last == to {
            return Some(way);
        }
        let next = edges.range((last, "")..).take_while(|(from, _)| *from == last).map(|&(_, to)| to);
        for room in next.filter(|room| seen.insert(room)) {
            ways.push_back([way.clone(), vec![room]].concat());
        }
    }
    None
}

/// Where a name of the root comes from.
#[derive(Clone)]
enum Origin {
    Room(String),
    /// The root defines it.
    Root,
    OtherCrate,
}

/// What the root calls itself in messages.
const ROOT: &str = "the root";

/// The names that the rooms of a crate can use of its root.
struct Names(BTreeMap<String, Origin>);

impl Names {
    fn of(root: &File) -> Self {
        let items = || root.items.iter().filter(|item| !is_for_tests(attributes(item)));
        let mut names = BTreeMap::new();
        for item in items() {
            let (name, origin) = match item {
                Item::Mod(it) => (&it.ident, Origin::Room(it.ident.to_string())),
                Item::Fn(it) => (&it.sig.ident, Origin::Root),
                Item::Struct(it) => (&it.ident, Origin::Root),
                Item::Enum(it) => (&it.ident, Origin::Root),
                Item::Trait(it) => (&it.ident, Origin::Root),
                Item::Type(it) => (&it.ident, Origin::Root),
                Item::Const(it) => (&it.ident, Origin::Root),
                Item::Static(it) => (&it.ident, Origin::Root),
                _ => continue,
            };
            names.insert(name.to_string(), origin);
        }
        let rooms = names.clone();
        for item in items() {
            let Item::Use(it) = item else { continue };
            for path in paths(&it.tree) {
                let skip = usize::from(["crate", "self"].contains(&path.segments[0].to_string().as_str()));
                let first = path.segments[skip].to_string();
                names.insert(path.name, rooms.get(&first).cloned().unwrap_or(Origin::OtherCrate));
            }
        }
        Self(names)
    }
}

/// A path of a `use` line, and what it is called from there on.
struct UsePath {
    segments: Vec<Ident>,
    name: String,
}

fn paths(tree: &UseTree) -> Vec<UsePath> {
    match tree {
        UseTree::Path(it) => {
            let mut paths = paths(&it.tree);
            for path in &mut paths {
                path.segments.insert(0, it.ident.clone());
                if path.name == "self" {
                    path.name = it.ident.to_string();
                }
            }
            paths
        }
        UseTree::Group(it) => it.items.iter().flat_map(paths).collect(),
        UseTree::Name(it) => vec![UsePath { segments: vec![it.ident.clone()], name: it.ident.to_string() }],
        UseTree::Rename(it) => {
            vec![UsePath { segments: vec![it.ident.clone()], name: it.rename.to_string() }]
        }
        UseTree::Glob(it) => {
            let star = Ident::new("all_names", it.star_token.spans[0]);
            vec![UsePath { segments: vec![star], name: "*".to_owned() }]
        }
    }
}

fn parse(path: &Path, read: &dyn Fn(&Path) -> Option<String>) -> File {
    let text = read(path).unwrap_or_else(|| panic!("cannot read {}", path.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("cannot parse {}: {error}", path.display()))
}

fn as_module(item: &Item) -> Option<&ItemMod> {
    if let Item::Mod(module) = item { Some(module).filter(|it| !is_for_tests(&it.attrs)) } else { None }
}

/// The files of a module, each with its room and its depth below the root.
fn find_files(
    parent: &Path,
    modules: &[String],
    module: &ItemMod,
    read: &dyn Fn(&Path) -> Option<String>,
    files: &mut Vec<(String, usize, PathBuf, File)>,
) {
    if module.content.is_some() {
        assert!(!modules.is_empty(), "{}: give the module {} a file", parent.display(), module.ident);
        // it is read with its parent
        return;
    }
    let name = module.ident.to_string();
    let is_directory = ["lib.rs", "main.rs", "mod.rs"].iter().any(|name| parent.ends_with(name));
    let directory =
        if is_directory { parent.parent().unwrap().to_owned() } else { parent.with_extension("") };
    let paths = [directory.join(format!("{name}.rs")), directory.join(&name).join("mod.rs")];
    let path = paths.into_iter().find(|path| read(path).is_some());
    let path = path.unwrap_or_else(|| panic!("{} has no file for its module {name}", parent.display()));
    let file = parse(&path, read);
    let modules = [modules, &[name]].concat();
    for inner in file.items.iter().filter_map(as_module) {
        find_files(&path, &modules, inner, read, files);
    }
    files.push((modules[0].clone(), modules.len(), path, file));
}

fn has(attributes: &[Attribute], name: &str) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident(name))
}

/// Whether an item exists in tests only.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    fn implies_test(condition: &Meta) -> bool {
        let parts = |list: &syn::MetaList| {
            let parser = Punctuated::<Meta, Token![,]>::parse_terminated;
            parser.parse2(list.tokens.clone()).unwrap_or_default()
        };
        match condition {
            Meta::Path(path) => path.is_ident("test"),
            Meta::List(list) if list.path.is_ident("all") => parts(list).iter().any(implies_test),
            Meta::List(list) if list.path.is_ident("any") => parts(list).iter().all(implies_test),
            _ => false,
        }
    }
    let mut conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    conditions.any(|attribute| attribute.parse_args().is_ok_and(|condition| implies_test(&condition)))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Impl(it) => &it.attrs,
        Item::Macro(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Static(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

/// Notes what one file uses of other rooms.
struct Reader<'a> {
    graph: &'a mut Graph,
    names: &'a Names,
    file: &'a Path,
    /// None for the root.
    room: Option<&'a str>,
    /// How many modules deep it is at.
    depth: usize,
}

impl<'a> Reader<'a> {
    fn new(
        graph: &'a mut Graph,
        names: &'a Names,
        file: &'a Path,
        room: Option<&'a String>,
        depth: usize,
    ) -> Self {
        Self { graph, names, file, room: room.map(String::as_str), depth }
    }

    fn path<'i>(&mut self, path: impl IntoIterator<Item = &'i Ident>) {
        let path: Vec<&Ident> = path.into_iter().collect();
        let (mut depth, mut rest) = (self.depth, path.as_slice());
        while let [first, after @ ..] = rest {
            match first.to_string().as_str() {
                "crate" => depth = 0,
                "super" => depth = depth.saturating_sub(1),
                "self" => {}
                _ => break,
            }
            rest = after;
        }
        let Some(name) = rest.first().filter(|_| depth == 0) else { return };
        let is_marked = rest.len() < path.len();
        let to = match self.names.0.get(&name.to_string()) {
            // a variable of the root may be called as a room is
            Some(Origin::Room(room)) if !is_marked && rest.len() == 1 && *name == room => return,
            Some(Origin::Room(room)) => room,
            Some(Origin::Root) => ROOT,
            Some(Origin::OtherCrate) => return,
            None if !is_marked => return,
            None => {
                let (file, line) = (self.file.display(), name.span().start().line);
                self.graph.unknown.push(format!("{file}:{line}: cannot tell which room crate::{name} is of"));
                return;
            }
        };
        let from = self.room.unwrap_or(ROOT);
        if from != to {
            let (file, line) = (self.file.display(), path[0].span().start().line);
            let path = path.iter().map(ToString::to_string).collect::<Vec<_>>().join("::");
            let used = format!("{file}:{line}: {path}");
            let lines = self.graph.uses.entry((from.to_owned(), to.to_owned())).or_default();
            if !lines.contains(&used) {
                lines.push(used);
            }
        }
    }

    /// The paths in a macro's arguments, or an attribute's, whatever they mean there.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is_colon =
            |tree: Option<&TokenTree>| matches!(tree, Some(TokenTree::Punct(it)) if it.as_char() == ':');
        for (at, tree) in tokens.iter().enumerate() {
            match tree {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) if ["crate", "self", "super"].iter().any(|name| first == name) => {
                    let (mut path, mut at) = (vec![first.clone()], at + 1);
                    while is_colon(tokens.get(at)) && is_colon(tokens.get(at + 1)) {
                        match tokens.get(at + 2) {
                            Some(TokenTree::Ident(next)) => path.push(next.clone()),
                            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                                // a `use` line
                                let tree = syn::parse2(TokenTree::from(group.clone()).into());
                                for inner in tree.iter().flat_map(paths) {
                                    self.path(path.iter().chain(&inner.segments));
                                }
                                path.clear();
                            }
                            _ => break,
                        }
                        at += 3;
                    }
                    if path.len() > 1 {
                        self.path(&path);
                    }
                }
                _ => {}
            }
        }
    }
}

impl<'i> Visit<'i> for Reader<'_> {
    fn visit_item(&mut self, item: &'i Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'i ImplItem) {
        if !matches!(item, ImplItem::Fn(it) if is_for_tests(&it.attrs)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_stmt(&mut self, statement: &'i Stmt) {
        if !matches!(statement, Stmt::Local(it) if is_for_tests(&it.attrs)) {
            visit::visit_stmt(self, statement);
        }
    }

    fn visit_item_mod(&mut self, module: &'i ItemMod) {
        // those of the root are rooms, and read by themselves
        if self.depth > 0 {
            self.depth += 1;
            visit::visit_item_mod(self, module);
            self.depth -= 1;
        }
    }

    fn visit_item_use(&mut self, item: &'i ItemUse) {
        if self.depth > 0 || matches!(item.vis, Visibility::Inherited) {
            for path in paths(&item.tree) {
                self.path(&path.segments);
            }
        }
    }

    fn visit_path(&mut self, path: &'i syn::Path) {
        self.path(path.segments.iter().map(|segment| &segment.ident));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, it: &'i syn::Macro) {
        self.path(it.path.segments.iter().map(|segment| &segment.ident));
        self.tokens(it.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'i Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}

/// A crate in memory.
fn graph(files: &[(&str, &str)]) -> Graph {
    let files: BTreeMap<&Path, &str> = files.iter().map(|(path, text)| (Path::new(path), *text)).collect();
    Graph::of(Path::new("src/lib.rs"), &|path| files.get(path).map(|text| (*text).to_owned()))
}

#[test]
fn a_circle_is_named_with_its_lines() {
    let graph = graph(&[
        ("src/lib.rs", "mod low; mod middle; mod high; pub use high::High;"),
        (
            "src/low.rs",
            "/// Of [`crate::high`].\npub struct Low;\nfn a() { crate::High::new() }\n// crate::middle::X",
        ),
        ("src/middle/mod.rs", "mod inner;\nuse crate::low::Low;"),
        ("src/middle/inner.rs", "use super::Y;\nuse super::super::low;"),
        ("src/high.rs", "use crate::{low::{self, Low}, middle::{self, Y as Z}};"),
    ]);
    let complaint = "the rooms of src/lib.rs form a circle: low → high → low\n  \
                     low uses high in\n    src/low.rs:3: crate::High::new\n  \
                     Move what is used there to low, or to a room that both may use.";
    assert_eq!(graph.complaints(), [complaint]);
}

#[test]
fn each_kind_of_use_counts() {
    for text in [
        "use crate::b;",
        "use crate::{b::X as Y};",
        "use super::b::*;",
        "pub use crate::X;",
        "pub(in crate::b) struct A;",
        "fn a() -> Option<crate::b::X> { None }",
        "fn a() { use super::X; }",
        "fn a() { super::b::x() }",
        "fn a() { print!(\"{}\", [crate::b::x()]) }",
        "fn a() { crate::x!() }",
        "#[derive(crate::b::X)] struct A;",
        "impl crate::X for u8 {}",
        "macro_rules! a { () => { use crate::{X, sys::f}; } }",
        "mod inner { use super::super::b; }",
        "#[cfg(not(test))] use crate::b;",
    ] {
        let b = "use crate::a; pub struct X; #[macro_export] macro_rules! x { () => {} }";
        let files = [
            ("src/lib.rs", "mod a; mod b; pub use b::X; use e as sys;"),
            ("src/a.rs", text),
            ("src/b.rs", b),
        ];
        let complaints = graph(&files).complaints();
        assert!(complaints.len() == 1 && complaints[0].contains("a → b → a"), "{text}: {complaints:?}");
    }
}

#[test]
fn what_is_no_use_of_a_room_does_not_count() {
    for text in [
        "// crate::b",
        "/** [`crate::b`] */ struct A;",
        "const A: &str = \"crate::b\";",
        "#[cfg(test)] mod tests { use crate::b; }",
        "#[cfg(test)] mod no_such_file;",
        "#[cfg(all(test, unix))] use crate::b;",
        "struct A; impl A { #[cfg(test)] fn a() { crate::b::x() } }",
        "use crate::sys; use b::x; mod b {}",
        "mod inner { use super::b; } mod b {}",
        "use self::b::X; mod b {}",
    ] {
        let files = [
            ("src/lib.rs", "mod a; mod b; use e as sys;"),
            ("src/a.rs", text),
            ("src/b.rs", "use crate::a;"),
        ];
        assert_eq!(graph(&files).complaints(), [""; 0], "{text}");
    }
}

#[test]
fn what_the_root_defines_is_a_room_and_what_it_exports_is_none() {
    let root = "mod a; pub use a::A;\nstruct Root { a: A }";
    let complaints =
        graph(&[("src/lib.rs", root), ("src/a.rs", "pub struct A;\nuse crate::Root;")]).complaints();
    assert!(complaints[0].contains("a → the root → a") && complaints[0].contains("src/a.rs:2: crate::Root"));
    assert_eq!(graph(&[("src/lib.rs", root), ("src/a.rs", "pub struct A;")]).complaints(), [""; 0]);
    let unknown =
        graph(&[("src/lib.rs", "mod a; pub use a::*;"), ("src/a.rs", "use crate::A;")]).complaints();
    assert_eq!(unknown, ["src/a.rs:1: cannot tell which room crate::A is of"]);
}
