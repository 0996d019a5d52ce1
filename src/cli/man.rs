//! `man`: the manual as man pages, one for the program and one for each command.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;

use super::args;
use super::context::Context;
use super::exit::{self, Failure, Outcome};
use super::output::{self, Output};
use super::units::counted;

#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Write all pages into this directory; without it, the program's page goes to stdout
    #[arg(short, long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    out: Option<PathBuf>,
}

pub(crate) fn run(context: &Context, args: &ManArgs) -> Result<Outcome, Failure> {
    let mut command = args::command().disable_help_subcommand(true);
    command.build();
    let Some(dir) = &args.out else {
        let mut page = Vec::new();
        write_program(command, &mut page).map_err(output::failure)?;
        let mut output = Output::new();
        output.write(&page)?;
        output.finish()?;
        return Ok(Outcome::Done);
    };
    fs::create_dir_all(dir).map_err(|source| Failure::file("create", dir, source))?;
    let pages = write_all(command, dir)?;
    context.note(format_args!(
        "{} in {}; man -l shows one of them",
        counted(pages, "page"),
        dir.display()
    ));
    Ok(Outcome::Done)
}

/// Writes every page; says how many there are.
fn write_all(command: Command, dir: &Path) -> Result<u64, Failure> {
    let mut pages = 1;
    let write = |name: &str, page: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, page).map_err(|source| Failure::file("write", &path, source))
    };
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let mut page = Vec::new();
        let man = Man::new(verb.clone());
        man.render(&mut page).map_err(output::failure)?;
        write(&man.get_filename(), &page)?;
        pages += 1;
    }
    let mut page = Vec::new();
    write_program(command, &mut page).map_err(output::failure)?;
    write("crabkv.1", &page)?;
    Ok(pages)
}

/// The program's page, with what `--help` has below the options.
fn write_program(command: Command, page: &mut Vec<u8>) -> io::Result<()> {
    let variables = variables(&command);
    let man = Man::new(command);
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_options_section(page)?;
    man.render_subcommands_section(page)?;
    let variables = variables
        .iter()
        .map(|(name, help)| (name.as_str(), help.as_str()));
    write_list(page, "ENVIRONMENT", variables)?;
    let codes = exit::HELP.lines().skip(1);
    let codes = codes.filter_map(|line| line.trim_start().split_once("  "));
    write_list(page, "EXIT STATUS", codes)?;
    man.render_version_section(page)
}

/// The environment variables, and what each of them stands for.
fn variables(command: &Command) -> Vec<(String, String)> {
    let arguments = command.get_arguments();
    let mut variables: Vec<_> = arguments
        .filter_map(|argument| {
            let name = argument.get_env()?.to_string_lossy().into_owned();
            let option = argument.get_long()?;
            Some((name, format!("In the place of --{option}")))
        })
        .collect();
    variables.push((
        super::shell::HISTORY_VARIABLE.to_owned(),
        "The file that keeps what was typed into the shell; empty for none".to_owned(),
    ));
    variables
}

fn write_list<'t>(
    page: &mut Vec<u8>,
    title: &str,
    items: impl Iterator<Item = (&'t str, &'t str)>,
) -> io::Result<()> {
    writeln!(page, ".SH \"{title}\"")?;
    for (name, text) in items {
        let text = text.replace('-', "\\-");
        writeln!(page, ".TP\n\\fB{name}\\fR\n{text}")?;
    }
    Ok(())
}
