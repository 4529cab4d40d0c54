//! The grammar of `forkd lab`.

use std::path::PathBuf;

use clap::Args;

/// The experiments, and how to begin.
pub(super) fn examples() -> String {
    let widest = forkd_lab::LABS.iter().map(|lab| lab.name.len()).max().unwrap_or(0);
    let labs = forkd_lab::LABS.iter().map(|lab| format!("  {:widest$}  {}\n", lab.name, lab.title));
    format!(
        "Experiments:\n{}\nExamples:\n  forkd lab zombie                     asks what will happen, does it, and says why\n  \
         forkd lab zombie --predict 2         the same without a question\n  \
         forkd lab lifo --svg pictures        with its result as pictures",
        labs.collect::<String>()
    )
}

/// The options of `lab`.
#[derive(Debug, Clone, Args)]
pub struct LabArgs {
    /// Experiment to carry out; without one they are listed
    pub name: Option<String>,

    /// Answer to its question, a number of those that it gives; without this you are asked, at a terminal
    #[arg(long, value_name = "NUMBER", requires = "name")]
    pub predict: Option<usize>,

    /// Print the result as JSON
    #[arg(long, requires = "name")]
    pub json: bool,

    /// Write the result as pictures into this directory: NAME.svg for a light background, and NAME-dark.svg
    #[arg(long, value_name = "DIR", requires = "name")]
    pub svg: Option<PathBuf>,
}
