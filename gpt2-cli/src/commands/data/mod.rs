//! `gpt2 data`: text to tokens and back.

mod hellaswag;
mod inspect;
mod of_text;
mod prepare;
mod progress;
mod text;

pub(crate) use of_text::shards_of_text;
pub(super) use text::parse_tokens;

use crate::cli::DataCommand;
use crate::error::CliError;

/// Runs one of the commands.
///
/// # Errors
/// Those of the command.
pub(crate) fn run(command: &DataCommand) -> Result<(), CliError> {
    match command {
        DataCommand::Prepare(args) => prepare::run(args),
        DataCommand::PrepareHellaswag(args) => hellaswag::run(args),
        DataCommand::Inspect(args) => inspect::run(&args.dir),
        DataCommand::Encode(args) => text::encode(args),
        DataCommand::Decode(args) => text::decode(args),
    }
}
