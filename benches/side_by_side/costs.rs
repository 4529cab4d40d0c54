//! What a fork costs on this machine for each thing that the parent has: by a program in C.

use std::io;
use std::process::Command;

use crate::page::Page;
use crate::server::build;

pub(crate) fn table(page: &mut Page, is_asked: &dyn Fn(&str) -> bool) -> io::Result<()> {
    if !is_asked("what fork costs") {
        return Ok(());
    }
    let Some(program) = build("fork_costs", "fork_costs.c", &[]) else { return Ok(()) };
    let output = Command::new(program).output()?;
    page.line("");
    page.line("| what fork costs: for each | µs |");
    page.line("|---|--:|");
    for (what, micros) in
        String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.split_once('\t'))
    {
        page.line(&format!("| {what} | {micros} |"));
    }
    Ok(())
}
