//! The `gpt2` command: reads the command line, runs the command, and turns what came of it into an exit code.
//!
//! 0 is success, 1 the user's error, 2 ours. The work is in `commands`, and all arithmetic in the libraries.

#![allow(
    clippy::exit,
    reason = "the process ends on a second signal, and when a thread of a device has panicked"
)]

mod allocator;
mod bar;
mod cli;
mod command_line;
mod commands;
mod diagnostics;
#[cfg(test)]
mod documentation;
mod ending;
mod environment;
mod error;
mod hints;
mod hub;
mod printer;
mod signals;
mod text_directory;
mod version;

use cli::{Cli, Command};
use error::CliError;
use std::panic::catch_unwind;
use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::keep_pages();
    environment::prepare();
    diagnostics::install_panic_hook();
    let code = end_of(catch_unwind(run));
    ending::leave_as_rank(code.into());
    ExitCode::from(code)
}

/// Says what is to be said of how the command ended; its exit code.
fn end_of(ended: std::thread::Result<Result<(), CliError>>) -> u8 {
    match ended {
        Ok(Ok(())) => 0,
        Ok(Err(error)) => {
            if error.is_lost_rank() {
                commands::ranks::wait_for_end();
            }
            diagnostics::report(&error);
            error.exit_code()
        }
        // The hook has said what happened.
        Err(_) => error::INTERNAL,
    }
}

fn run() -> Result<(), CliError> {
    signals::install()?;
    let Some(cli) = Cli::read()? else { return Ok(()) };
    match cli.command {
        Command::Train(args) => commands::train::run(&args),
        Command::Sample(args) => commands::sample::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Bench(command) => commands::bench::run(&command),
        Command::Profile(args) => commands::profile::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Import(args) => commands::export::import(&args),
        Command::Push(args) => commands::export::push(&args),
        Command::Devices => commands::devices::run(),
        Command::Data(command) => commands::data::run(&command),
        Command::Completions(args) => commands::describe::completions(&args),
        Command::Man(args) => commands::describe::man(&args),
        Command::Schema => commands::describe::schema(),
    }
}
