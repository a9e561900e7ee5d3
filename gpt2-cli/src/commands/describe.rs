//! The command line and the run file in the forms that other programs read: shell completions, man pages, a JSON schema.

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::error::CliError;
use crate::printer::print;
use clap::CommandFactory as _;
use clap_mangen::Man;
use gpt2_model::ModelError;
use gpt2_train::config::RunConfig;
use std::fs;

/// Prints what a shell reads to complete `gpt2`'s command line.
///
/// # Errors
/// If standard output cannot be written.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "gpt2", &mut script);
    print(script)
}

/// Prints the man page of `gpt2`, or writes those of all commands into a directory.
///
/// # Errors
/// If they cannot be written.
pub(crate) fn man(args: &ManArgs) -> Result<(), CliError> {
    let Some(dir) = &args.out else {
        let mut page = Vec::new();
        Man::new(Cli::command())
            .render(&mut page)
            .map_err(|source| CliError::Stdout { source })?;
        return print(page);
    };
    let write = || {
        fs::create_dir_all(dir)?;
        clap_mangen::generate_to(Cli::command(), dir)
    };
    write().map_err(|source| {
        CliError::Model(ModelError::Io {
            path: dir.clone(),
            source,
        })
    })
}

/// Prints the JSON schema of run files, by which editors check and complete them.
///
/// # Errors
/// If standard output cannot be written.
pub(crate) fn schema() -> Result<(), CliError> {
    print(format!("{:#}\n", RunConfig::json_schema()))
}
