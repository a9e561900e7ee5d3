//! `gpt2 export` and `gpt2 import`: weights from one format into another, a tensor at a time.

use super::weights::weights_of;
use crate::cli::{ExportArgs, ExportFormat, ImportArgs, NumberType, PushArgs};
use crate::diagnostics::note;
use crate::error::CliError;
use crate::hub;
use crate::printer::quoted;
use gpt2_base::fs::NewDirectory;
use gpt2_base::units::{bytes, grouped};
use gpt2_data::{END_OF_TEXT, Tokenizer};
use gpt2_model::weights::{Dtype, GgufVocabulary, Weights};
use gpt2_model::{Gpt2Config, ModelError, cost};
use gpt2_train::checkpoint::{Checkpoint, RunState};
use gpt2_train::config::RunConfig;
use gpt2_train::run_dir::RunPaths;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

/// Writes the weights of a run, a checkpoint or another model in a format.
///
/// # Errors
/// What is wrong with the weights, the format or the disk.
pub(crate) fn run(args: &ExportArgs) -> Result<(), CliError> {
    convert(&args.source, args.format, args.dtype.into(), &args.out)
}

/// Writes weights as a directory that this program and transformers open.
///
/// # Errors
/// Those of [`run`].
pub(crate) fn import(args: &ImportArgs) -> Result<(), CliError> {
    convert(&args.source, ExportFormat::Hf, args.dtype.into(), &args.out)
}

/// Writes weights as transformers has them, with a model card, and sends them to the hub as one commit.
///
/// # Errors
/// Those of [`run`], and what the hub refuses.
pub(crate) fn push(args: &PushArgs) -> Result<(), CliError> {
    // Before anything is written.
    hub::check_push(&args.address)?;
    let path = weights_of(&args.source)?;
    let weights = Weights::open(&path)?;
    let name = args.address.split('@').next().and_then(|id| id.rsplit('/').next());
    let directory = tempfile::tempdir().map_err(|source| ModelError::Io {
        path: std::env::temp_dir(),
        source,
    })?;
    let model = directory.path().join("model");
    write_hf(&weights, &path, args.dtype.into(), name.unwrap_or("gpt2"), &model)?;
    hub::push(&model, &args.address, args.message.as_deref(), args.private)
}

fn convert(source: &Path, format: ExportFormat, dtype: Dtype, out: &Path) -> Result<(), CliError> {
    if out.exists() {
        return Err(CliError::InvalidFlag {
            flag: "--out",
            value: format!("{}, which is there already", quoted(out)),
            expected: "a path where nothing is yet".to_owned(),
        });
    }
    let began = Instant::now();
    let path = weights_of(source)?;
    let weights = Weights::open(&path)?;
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent).map_err(cannot_write(out))?;
    }
    let name = out
        .file_stem()
        .map_or_else(|| "gpt2".into(), |name| name.to_string_lossy());
    match format {
        ExportFormat::Hf => write_hf(&weights, &path, dtype, &name, out)?,
        ExportFormat::Llmc => weights.write_llmc(out, dtype)?,
        ExportFormat::Gguf => {
            let vocabulary = weights.config().has_gpt2_vocabulary().then(vocabulary);
            weights.write_gguf(out, dtype, &name, vocabulary.as_ref())?;
        }
    }
    note(&format!(
        "{}: {} parameters of {} as {format} in {dtype}, {} in {:.1} s",
        quoted(out),
        grouped(cost::parameters(weights.config())),
        quoted(&path),
        bytes(size(out)),
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn cannot_write(out: &Path) -> impl Fn(io::Error) -> ModelError + Copy + '_ {
    |source| ModelError::Io {
        path: out.to_owned(),
        source,
    }
}

/// All files of a directory that transformers opens, or none.
fn write_hf(weights: &Weights, source: &Path, dtype: Dtype, name: &str, out: &Path) -> Result<(), CliError> {
    let io = cannot_write(out);
    let directory = NewDirectory::create(out).map_err(io)?;
    weights.write_hf(directory.path(), dtype)?;
    if weights.config().has_gpt2_vocabulary() {
        Tokenizer::gpt2().write_hf_files(directory.path(), weights.config().block_size)?;
    }
    let card = model_card(name, weights.config(), source);
    fs::write(directory.path().join("README.md"), card).map_err(io)?;
    Ok(directory.commit().map_err(io)?)
}

fn vocabulary() -> GgufVocabulary {
    let (tokens, merges) = Tokenizer::gpt2().spelt();
    GgufVocabulary {
        tokens,
        merges,
        end_of_text: END_OF_TEXT.into(),
    }
}

/// Bytes of a file, or of the files in a directory.
fn size(path: &Path) -> u64 {
    let of = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    match fs::read_dir(path) {
        Ok(entries) => entries.flatten().map(|entry| of(&entry.path())).sum(),
        Err(_) => of(path),
    }
}

/// A model card in the hub's form: the shape, and what is known of the training.
fn model_card(name: &str, config: &Gpt2Config, source: &Path) -> String {
    let mut rows = vec![
        ("parameters", grouped(cost::parameters(config))),
        (
            "shape",
            format!(
                "{} layers, {} heads, {} wide, {} positions, {} tokens",
                config.n_layer,
                config.n_head,
                config.n_embd,
                grouped(config.block_size as u64),
                grouped(config.vocab_size as u64)
            ),
        ),
    ];
    if let Ok(Checkpoint { state, .. }) = Checkpoint::open(source) {
        rows.extend(training(&state, source));
    }
    let mut card = format!(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- gpt2\n---\n# {name}\n\nA GPT-2, written by \
         `gpt2` {}.\n\n| | |\n|---|---|\n",
        crate::version::VERSION
    );
    for (label, value) in rows {
        let _ = writeln!(card, "| {label} | {} |", value.replace('|', "\\|"));
    }
    card.push_str(
        "\n```python\nfrom transformers import AutoModelForCausalLM\nmodel = AutoModelForCausalLM.from_pretrained(\".\")\n```\n",
    );
    card
}

/// What a checkpoint of a run says of its training.
fn training(state: &RunState, checkpoint: &Path) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("optimizer steps", grouped(state.step)),
        ("training tokens", grouped(state.tokens)),
    ];
    if let Some(loss) = state.val_loss {
        rows.push(("validation loss", format!("{loss:.4} nats a token")));
    }
    // A checkpoint lies in the directory of checkpoints of its run.
    let plan = checkpoint
        .ancestors()
        .nth(2)
        .and_then(|run| RunConfig::from_toml_file(&RunPaths::new(run).plan()).ok());
    if let Some(plan) = plan {
        let data = plan.data.as_deref().and_then(Path::file_name);
        let data = data.map_or("made-up stories".into(), |name| name.to_string_lossy());
        rows.push(("data", data.into_owned()));
        let sequences = plan.global_batch.zip(plan.seq);
        rows.extend(sequences.map(|(batch, seq)| ("batch", format!("{batch} sequences of {seq} tokens"))));
        rows.extend(plan.lr.map(|lr| ("highest learning rate", format!("{lr:e}"))));
        rows.extend(plan.precision.map(|precision| ("precision", precision.to_string())));
        rows.extend(plan.seed.map(|seed| ("seed", seed.to_string())));
    }
    rows
}

impl From<NumberType> for Dtype {
    fn from(number: NumberType) -> Self {
        match number {
            NumberType::F32 => Self::F32,
            NumberType::F16 => Self::F16,
            NumberType::Bf16 => Self::Bf16,
        }
    }
}
