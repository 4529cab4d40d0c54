//! The documents of a package: those of the repository, whose links lead to where the package has what they name.
//!
//! Invariant: what isn't in the package is a link to the repository; where a file is packaged, the list of assets in
//! `Cargo.toml` says, and nothing else.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

/// What precedes the target of a link or of a picture, and what ends it.
const LINKS: [(&str, char); 3] = [("](", ')'), ("src=\"", '"'), ("srcset=\"", '"')];

/// Where the files of the repository are in the package.
pub(crate) struct Package {
    repository: String,
    /// A file of the repository, or all in a directory that have an ending (`docs/*.md`); and where it goes.
    assets: Vec<(String, PathBuf)>,
}

impl Package {
    /// Reads it from the manifest.
    pub(crate) fn of(manifest: &str) -> Option<Self> {
        let manifest: toml::Table = manifest.parse().ok()?;
        let package = manifest["package"].as_table()?;
        let assets = package["metadata"]["deb"]["assets"].as_array()?;
        let asset = |asset: &toml::Value| {
            let (from, to) = (asset[0].as_str()?, asset[1].as_str()?);
            let from = from.strip_prefix("target/package/").unwrap_or(from);
            let name = if to.ends_with('/') { Path::new(from).file_name()?.to_str()? } else { "" };
            // cargo-deb compresses it
            let to = if to.ends_with("/changelog") { format!("{to}.gz") } else { format!("{to}{name}") };
            Some((from.to_owned(), PathBuf::from(to)))
        };
        let assets = assets.iter().map(asset).collect::<Option<_>>()?;
        Some(Self { repository: env!("CARGO_PKG_REPOSITORY").to_owned(), assets })
    }

    /// The documents that the package has, by their paths in the repository.
    pub(crate) fn documents(&self, repository: &Path) -> io::Result<Vec<PathBuf>> {
        let mut documents = Vec::new();
        for directory in ["", "docs", "docs/decisions", "docs/reference"].map(Path::new) {
            for entry in fs::read_dir(repository.join(directory))? {
                let document = directory.join(entry?.file_name());
                if document.extension().is_some_and(|end| end == "md") && self.place(&document).is_some() {
                    documents.push(document);
                }
            }
        }
        Ok(documents)
    }

    /// Gives a document the links of the package. `name` is its path in the repository.
    pub(crate) fn relink(&self, name: &Path, text: &str) -> String {
        let mut linked = text.to_owned();
        for (start, end) in LINKS {
            let mut parts = linked.split(start);
            let mut whole = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let (target, rest) = part.split_at(part.find(end).unwrap_or(0));
                whole += &format!("{start}{}{rest}", self.target(name, target));
            }
            linked = whole;
        }
        linked
    }

    fn target(&self, document: &Path, target: &str) -> String {
        let (path, fragment) = target.split_at(target.find('#').unwrap_or(target.len()));
        if path.is_empty() || path.contains(':') {
            return target.to_owned();
        }
        let path = normal(&document.with_file_name(path));
        match (self.place(document), self.place(&path)) {
            (Some(from), Some(to)) => format!("{}{fragment}", relative(&from, &to).display()),
            _ => {
                // a picture itself, and not a page that shows it
                let kind = if path.extension().is_some_and(|end| end == "svg") { "raw" } else { "blob" };
                format!("{}/{kind}/main/{}{fragment}", self.repository, path.display())
            }
        }
    }

    /// Where the package has a file of the repository.
    fn place(&self, path: &Path) -> Option<PathBuf> {
        let name = path.to_str()?;
        self.assets.iter().find_map(|(from, to)| match from.split_once('*') {
            None => (from == name).then(|| to.clone()),
            Some((start, end)) => {
                let file = name.strip_prefix(start)?.strip_suffix(end)?;
                (!file.contains('/')).then(|| to.with_file_name(format!("{file}{end}")))
            }
        })
    }
}

/// Without `..`, by the names alone.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut normal, component| {
        match component {
            Component::ParentDir => drop(normal.pop()),
            component => normal.push(component),
        }
        normal
    })
}

/// The path to a file from the directory of another one.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let directory = from.parent().unwrap_or(from);
    let shared = directory.components().zip(to.components()).take_while(|(one, other)| one == other).count();
    let up = directory.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}
