//! `gpt2 sample`: text from a trained model, printed as it comes.

use super::data::parse_tokens;
use super::weights::newest_checkpoint;
use crate::cli::SampleArgs;
use crate::diagnostics::{note, warn};
use crate::error::CliError;
use crate::hub;
use crate::printer::print;
use gpt2_backend::Chosen;
use gpt2_data::{END_OF_TEXT, StreamDecoder, Tokenizer, VOCAB_SIZE};
use gpt2_model::sampling::Sampling;
use gpt2_model::{Gpt2Config, Inference, weights};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Checks the flags, finds the weights, and samples on the backend asked for.
///
/// # Errors
/// What is wrong with flags, weights or device.
pub(crate) fn run(args: &SampleArgs) -> Result<(), CliError> {
    check(args)?;
    let dir = weights_dir(args)?;
    let chosen = Chosen::decide(args.machine.backend, args.machine.device)?;
    note(&format!(
        "{} on {} {} ({})",
        dir.display(),
        chosen.backend,
        chosen.device.name,
        chosen.reason
    ));
    let config = weights::load_config(&dir)?;
    let vocabulary = Vocabulary::of(&config);
    let prompt = vocabulary.encode(&args.prompt)?;
    if prompt.len() > config.block_size {
        warn(&format!(
            "the prompt has {} tokens, of which the model sees the last {}",
            prompt.len(),
            config.block_size
        ));
    }
    if let Some(remark) = vocabulary.remark() {
        note(&remark);
    }
    let printed = chosen.with_model(&dir, args.machine.precision, |model| {
        write(args, vocabulary, &prompt, model)
    })?;
    let (tokens, seconds) = printed?;
    note(&format!(
        "{tokens} tokens in {seconds:.2} s, {:.1} tokens/s",
        f64::from(tokens) / seconds.max(1e-3)
    ));
    Ok(())
}

/// Prints the prompt and what the model makes of it, until `<|endoftext|>` or `--max-tokens`: how many tokens, and in how many
/// seconds.
fn write(
    args: &SampleArgs,
    vocabulary: Vocabulary,
    prompt: &[i32],
    model: &dyn Inference,
) -> Result<(u32, f64), CliError> {
    let mut writer = Writer::new(vocabulary);
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
    };
    let mut tokens = 0;
    let began = Instant::now();
    for token in model.generate(prompt, sampling, args.seed).take(args.max_tokens) {
        let token = token?;
        // Not before the model has given a token: nothing is printed where it cannot.
        if tokens == 0 {
            writer.start(&args.prompt)?;
        }
        tokens += 1;
        if vocabulary.ends_text(token) {
            break;
        }
        writer.push(token)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    writer.finish()?;
    Ok((tokens, seconds))
}

/// What tokens mean. Only GPT-2's vocabulary is known; a model with another speaks in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vocabulary {
    /// GPT-2's tokens, and after them perhaps others, which are numbers.
    Gpt2 {
        vocab_size: usize,
    },
    Numbers {
        vocab_size: usize,
    },
}

impl Vocabulary {
    fn of(config: &Gpt2Config) -> Self {
        let vocab_size = config.vocab_size;
        if config.has_gpt2_vocabulary() {
            Self::Gpt2 { vocab_size }
        } else {
            Self::Numbers { vocab_size }
        }
    }

    /// What to tell a user who might expect text.
    fn remark(self) -> Option<String> {
        match self {
            Self::Gpt2 { vocab_size: VOCAB_SIZE } => None,
            Self::Gpt2 { vocab_size } => Some(format!(
                "the model has {vocab_size} tokens: the first {VOCAB_SIZE} are printed as GPT-2's text, the \
                 others as numbers"
            )),
            Self::Numbers { vocab_size } => Some(format!(
                "the model has {vocab_size} tokens, not GPT-2's {VOCAB_SIZE}: printing token numbers"
            )),
        }
    }

    /// The prompt's tokens, at least one.
    fn encode(self, prompt: &str) -> Result<Vec<i32>, CliError> {
        let mut tokens: Vec<i32> = match self {
            Self::Gpt2 { .. } => Tokenizer::gpt2()
                .encode_with_special(prompt)
                .into_iter()
                .map(i32::from)
                .collect(),
            Self::Numbers { vocab_size } => parse_tokens(prompt, vocab_size)?
                .into_iter()
                .map(|token| token as i32)
                .collect(),
        };
        if tokens.is_empty() {
            tokens.push(match self {
                Self::Gpt2 { .. } => i32::from(END_OF_TEXT),
                // As this program's own config.json files say.
                Self::Numbers { vocab_size } => vocab_size as i32 - 1,
            });
        }
        Ok(tokens)
    }

    fn ends_text(self, token: i32) -> bool {
        matches!(self, Self::Gpt2 { .. }) && token == i32::from(END_OF_TEXT)
    }
}

/// Prints tokens one by one.
enum Writer {
    Text(StreamDecoder),
    Numbers,
}

impl Writer {
    fn new(vocabulary: Vocabulary) -> Self {
        match vocabulary {
            Vocabulary::Gpt2 { .. } => Self::Text(StreamDecoder::new()),
            Vocabulary::Numbers { .. } => Self::Numbers,
        }
    }

    fn start(&self, prompt: &str) -> Result<(), CliError> {
        match self {
            Self::Text(_) => print(prompt),
            Self::Numbers if prompt.is_empty() => Ok(()),
            Self::Numbers => print(format!("{} ", prompt.trim())),
        }
    }

    fn push(&mut self, token: i32) -> Result<(), CliError> {
        print(self.text(token))
    }

    /// What is complete with this token.
    fn text(&mut self, token: i32) -> String {
        match self {
            Self::Text(decoder) => match u16::try_from(token) {
                Ok(token) if usize::from(token) < VOCAB_SIZE => decoder.push(token),
                // Past GPT-2's tokens. A character that is unfinished stays so.
                _ => std::mem::take(decoder).finish() + &format!("<|{token}|>"),
            },
            Self::Numbers => format!("{token} "),
        }
    }

    fn finish(self) -> Result<(), CliError> {
        match self {
            Self::Text(decoder) => print(decoder.finish() + "\n"),
            Self::Numbers => print("\n"),
        }
    }
}

/// The directory with the weights: the one given, or the newest whole checkpoint of a run.
fn weights_dir(args: &SampleArgs) -> Result<PathBuf, CliError> {
    // clap lets exactly one of them be given.
    let Some(run) = &args.weights.run else {
        return hub::weights(args.weights.init.as_deref().unwrap_or(Path::new("")));
    };
    newest_checkpoint(run)
}

fn check(args: &SampleArgs) -> Result<(), CliError> {
    let judge = |good: bool, flag, value: &dyn ToString, expected: &str| {
        if good {
            return Ok(());
        }
        Err(CliError::InvalidFlag {
            flag,
            value: value.to_string(),
            expected: expected.to_owned(),
        })
    };
    let temperature = args.temperature.is_finite() && args.temperature >= 0.0;
    judge(
        temperature,
        "--temperature",
        &args.temperature,
        "0 or more, such as 0.8",
    )?;
    let top_p = args.top_p > 0.0 && args.top_p <= 1.0;
    judge(
        top_p,
        "--top-p",
        &args.top_p,
        "above 0 and at most 1, where 1 keeps all tokens",
    )?;
    judge(args.max_tokens >= 1, "--max-tokens", &args.max_tokens, "at least 1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vocab_size: usize) -> Vocabulary {
        Vocabulary::of(&Gpt2Config {
            vocab_size,
            ..Gpt2Config::preset("gpt2").unwrap()
        })
    }

    #[test]
    fn an_empty_prompt_is_the_start_of_a_document() {
        assert_eq!(of(VOCAB_SIZE).encode("").unwrap(), [50_256]);
        assert_eq!(of(50_304).encode("").unwrap(), [50_256]);
        assert_eq!(of(96).encode("").unwrap(), [95]);
    }

    #[test]
    fn a_prompt_is_text_or_numbers() {
        for vocab_size in [VOCAB_SIZE, 50_260, 50_304] {
            assert_eq!(of(vocab_size).encode("Hello<|endoftext|>").unwrap(), [15_496, 50_256]);
        }
        assert_eq!(of(96).encode("1 2 95").unwrap(), [1, 2, 95]);
        let message = of(96).encode("1 96").unwrap_err().to_string();
        assert_eq!(
            message,
            "\"96\" is not a token (word 2): expected a whole number from 0 to 95"
        );
    }

    #[test]
    fn text_ends_only_where_the_token_is_known() {
        assert!(of(VOCAB_SIZE).ends_text(50_256));
        assert!(of(50_304).ends_text(50_256) && !of(50_304).ends_text(50_303));
        assert!(!of(96).ends_text(95));
    }

    #[test]
    fn tokens_past_gpt2s_are_numbers_within_the_text() {
        let mut writer = Writer::new(of(50_304));
        // The first half of an emoji's bytes, cut short by a token that is no text.
        let text: String = [15_496, 50_257, 995, 8_582, 70_000, 0]
            .map(|token| writer.text(token))
            .concat();
        assert_eq!(text, "Hello<|50257|> world\u{FFFD}<|70000|>!");
        assert_eq!(of(VOCAB_SIZE).remark(), None);
        assert!(of(50_304).remark().unwrap().contains("50304 tokens: the first 50257"));
    }
}
