//! What a benchmark finds, as Markdown: printed line by line, and with `--write` put into docs/PERFORMANCE.md at its end,
//! between the two comments that name the benchmark.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The arguments of `cargo bench --bench NAME -- [--write] [WORD…]`.
pub(crate) struct Arguments {
    /// Only rows with one of these in their names.
    words: Vec<String>,
    is_to_write: bool,
}

impl Arguments {
    /// `None` without `--bench`: `cargo test --benches` and the like only want to know that it builds.
    pub(crate) fn read() -> Option<Self> {
        let (options, words): (Vec<_>, Vec<_>) =
            std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
        let is = |option: &str| options.iter().any(|it| it == option);
        is("--bench").then(|| Self { words, is_to_write: is("--write") })
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.words.is_empty() || self.words.iter().any(|word| name.contains(word.as_str()))
    }
}

/// The page as far as it is written.
pub(crate) struct Page {
    name: &'static str,
    text: String,
}

impl Page {
    /// Begins with when, of which build, and on what.
    pub(crate) fn begin(name: &'static str) -> Self {
        let mut page = Self { name, text: String::new() };
        page.line(&about());
        page.line("");
        page
    }

    pub(crate) fn line(&mut self, line: &str) {
        println!("{line}");
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Puts it into the document, where that was asked for.
    pub(crate) fn end(self, arguments: &Arguments) -> io::Result<()> {
        if !arguments.is_to_write {
            return Ok(());
        }
        if !arguments.words.is_empty() {
            return Err(io::Error::other(
                "a part of the rows is no table for the document: --write takes no words",
            ));
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PERFORMANCE.md");
        let whole = fs::read_to_string(&path)?;
        let [begin, end] = ["", "/"].map(|slash| format!("<!-- {slash}{} -->", self.name));
        let parts =
            whole.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
        let Some((before, after)) = parts else {
            return Err(io::Error::other(format!("{} has no {begin} and {end}", path.display())));
        };
        fs::write(path, format!("{before}{begin}\n{}\n{end}{after}", self.text.trim_end()))
    }
}

/// The program that is measured.
pub(crate) fn forkd() -> PathBuf {
    std::env::var_os("FORKD_BIN").map_or_else(|| env!("CARGO_BIN_EXE_forkd").into(), PathBuf::from)
}

fn about() -> String {
    let forkd = forkd();
    let says = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        text.filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into())
    };
    let version = says(&forkd.display().to_string(), &["--version"]);
    let build = match std::env::var_os("FORKD_BIN") {
        Some(_) => forkd.display().to_string(),
        None => format!("commit {}", says("git", &["describe", "--always", "--dirty"])),
    };
    let date = says("date", &["-u", "+%Y-%m-%d %H:%M UTC"]);
    let (kernel, processors) = (says("uname", &["-sr"]), says("nproc", &[]));
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "Measured at {date}: {version} ({build}), {kernel}, {processors} × {}; load average before: {}.",
        name.map_or("unknown", |(_, name)| name),
        load.split(' ').next().unwrap_or("unknown")
    )
}
