//! `gpt2 sample`: text from a trained model, printed as it comes.

use super::data::parse_tokens;
use crate::cli::SampleArgs;
use crate::diagnostics::{note, warn};
use crate::error::CliError;
use crate::printer::print;
use crate::threads;
use gpt2_backend::HostFacts;
use gpt2_backend::{Chosen, InferenceJob, dispatch_inference};
use gpt2_data::{END_OF_TEXT, StreamDecoder, Tokenizer, VOCAB_SIZE};
use gpt2_model::ops::Gpt2Backend;
use gpt2_model::sampling::Sampling;
use gpt2_model::{Generator, Gpt2, Gpt2Config, weights};
use gpt2_train::checkpoint::Checkpoints;
use gpt2_train::run_dir::RunPaths;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Checks the flags, finds the weights, and samples on the backend asked for.
///
/// # Errors
/// What is wrong with flags, weights or device.
pub(crate) fn run(args: &SampleArgs) -> Result<(), CliError> {
    check(args)?;
    let dir = weights_dir(args)?;
    threads::set(HostFacts::detect().cores)?;
    let chosen = Chosen::decide(args.machine.backend, args.machine.device)?;
    note(&format!(
        "{} on {} {} ({})",
        dir.display(),
        chosen.backend,
        chosen.device.name,
        chosen.reason
    ));
    let job = SampleJob {
        args,
        dir: &dir,
        chosen: &chosen,
    };
    dispatch_inference(&chosen, job)?
}

struct SampleJob<'a> {
    args: &'a SampleArgs,
    dir: &'a Path,
    chosen: &'a Chosen,
}

impl InferenceJob for SampleJob<'_> {
    type Output = Result<(), CliError>;

    fn run<B: Gpt2Backend>(self, device: B::Device) -> Result<(), CliError> {
        let precision = self.args.machine.precision;
        let plain = B::plain_precision(precision);
        if plain != precision {
            return Err(CliError::InvalidFlag {
                flag: "--precision",
                value: precision.to_string(),
                expected: format!(
                    "{plain}: the kernels of {precision} on {} are for training",
                    self.chosen.backend
                ),
            });
        }
        self.chosen.check_precision(precision)?;
        let model = weights::load_hf::<B>(self.dir, &device)?.with_precision(precision);
        sample(self.args, &model)
    }
}

/// Prints the prompt and what the model makes of it, until `<|endoftext|>` or `--max-tokens`.
fn sample<B: Gpt2Backend>(args: &SampleArgs, model: &Gpt2<B>) -> Result<(), CliError> {
    let vocabulary = Vocabulary::of(&model.config);
    let prompt = vocabulary.encode(&args.prompt)?;
    let block_size = model.config.block_size;
    if prompt.len() > block_size {
        warn(&format!(
            "the prompt has {} tokens, of which the model sees the last {block_size}",
            prompt.len()
        ));
    }
    let sampling = Sampling {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
    };

    if let Some(remark) = vocabulary.remark() {
        note(&remark);
    }

    let started = Instant::now();
    let mut writer = Writer::new(vocabulary);
    let mut tokens = 0_u64;
    for token in Generator::new(model, &prompt, sampling, args.seed).take(args.max_tokens) {
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
    writer.finish()?;
    let seconds = started.elapsed().as_secs_f64();
    note(&format!(
        "{tokens} tokens in {seconds:.2} s, {:.1} tokens/s",
        tokens as f64 / seconds.max(1e-3)
    ));
    Ok(())
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
        return Ok(args.weights.init.clone().unwrap_or_default());
    };
    let paths = RunPaths::existing(run)?;
    let (checkpoint, damaged) = Checkpoints::open(paths.checkpoints())?.newest()?;
    for error in damaged {
        warn(&format!("{error}; taking an older one"));
    }
    Ok(checkpoint.path().to_path_buf())
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
