//! `gpt2 data prepare-hellaswag`: HellaSwag's JSONL into llm.c's file of multiple choice.

use crate::cli::PrepareHellaswagArgs;
use crate::error::CliError;
use crate::printer::{print, quoted};
use gpt2_base::units::grouped;
use gpt2_eval::formats::{hellaswag, llmc};

/// Reads the examples, writes them, and says what to do with them.
pub(super) fn run(args: &PrepareHellaswagArgs) -> Result<(), CliError> {
    let PrepareHellaswagArgs { input, out } = args;
    let same = |found: &std::path::Path| found.canonicalize().ok();
    if same(input).is_some_and(|input| same(out) == Some(input)) {
        return Err(CliError::InvalidFlag {
            flag: "--out",
            value: out.display().to_string(),
            expected: "another file than --input".to_owned(),
        });
    }
    let examples = hellaswag::read(input)?;
    llmc::write(out, &examples)?;
    let tokens: usize = examples
        .iter()
        .map(|example| example.context.len() + example.endings.iter().map(Vec::len).sum::<usize>())
        .sum();
    print(format!(
        "{} examples, {} tokens\n\nNext: gpt2 eval RUN --hellaswag {}\n",
        grouped(examples.len() as u64),
        grouped(tokens as u64),
        quoted(out)
    ))
}
