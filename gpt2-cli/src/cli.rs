//! The command line: what can be typed, with its help. What the values must be is judged where they are used.

use crate::command_line::Typed;
use crate::commands::ranks::PEER_TIMEOUT;
use crate::error::CliError;
use crate::printer;
use crate::version::VERSION;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use gpt2_bench::fixed_work;
use gpt2_bench::scaling::Mode;
use gpt2_model::{Operations, Precision, Recompute};
use gpt2_train::config::{BackendChoice, Devices, RunConfig, operations_parser, precision_parser, recompute_parser};
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Train GPT-2 from scratch: prepare text, train, sample.
#[derive(Debug, Parser)]
#[command(
    name = "gpt2",
    version = VERSION,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Examples:
  gpt2 train                                  Train a small model on stories, in minutes on a CPU
  gpt2 sample --run runs/demo                 Continue one of its stories
  gpt2 train --data book.txt --model d6       Train on a text of your own"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a model, or go on training one.
    Train(Box<TrainArgs>),
    /// Write text with a trained model.
    Sample(SampleArgs),
    /// Score a trained model: loss, multiple choice, last words.
    Eval(EvalArgs),
    /// Measure speed and memory.
    #[command(subcommand, arg_required_else_help = true)]
    Bench(BenchCommand),
    /// Take a training step apart: time by layer kind and operation, beside what the device reaches at most.
    Profile(ProfileArgs),
    /// Make tables, figures and a page of runs or of a study; compare runs; check files; follow a run.
    Report(ReportArgs),
    /// Write a model in another program's format: Hugging Face transformers', llm.c's, llama.cpp's.
    Export(ExportArgs),
    /// Write a model of another format as a directory that this program and transformers open.
    Import(ImportArgs),
    /// Send a model to the Hugging Face hub, with a card that says what is known of its training.
    Push(PushArgs),
    /// List what there is to compute on.
    Devices,
    /// Turn text into tokens, and look at them.
    #[command(subcommand, arg_required_else_help = true)]
    Data(DataCommand),
    /// Print what a shell reads to complete this command line.
    Completions(CompletionsArgs),
    /// Print the man page, or write those of all commands.
    Man(ManArgs),
    /// Print the JSON schema of run files, by which editors check and complete them.
    Schema,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 export runs/demo --out models/demo
  gpt2 export runs/demo --format gguf --dtype f16 --out demo.gguf
  gpt2 export models/gpt2 --format llmc --out gpt2_124M.bin")]
pub(crate) struct ExportArgs {
    /// A run, of which the newest whole checkpoint is taken, a checkpoint, or weights in any of the formats.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: PathBuf,
    /// The format.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ExportFormat::Hf)]
    pub(crate) format: ExportFormat,
    /// Type of the numbers; llmc has no f16.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = NumberType::F32)]
    pub(crate) dtype: NumberType,
    /// What to write: a directory for hf, a file for llmc and gguf.
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 import gpt2_124M.bin --out models/gpt2
  gpt2 import model.gguf --out models/other")]
pub(crate) struct ImportArgs {
    /// A directory of transformers' files, a safetensors file next to its config.json, a checkpoint of llm.c, or a GGUF file.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: PathBuf,
    /// Type of the numbers.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = NumberType::F32)]
    pub(crate) dtype: NumberType,
    /// The directory to write.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
}

/// A format of weights to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Hugging Face transformers'.
    Hf,
    /// llm.c's checkpoint.
    Llmc,
    /// llama.cpp's.
    Gguf,
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hf => "hf",
            Self::Llmc => "llmc",
            Self::Gguf => "gguf",
        })
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 push runs/demo hf:me/stories
  gpt2 push runs/demo hf:me/stories --dtype bf16 --private

The token is HF_TOKEN, or what `hf auth login` has left.")]
pub(crate) struct PushArgs {
    /// A run, of which the newest whole checkpoint is taken, a checkpoint, or weights in any of the formats.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: PathBuf,
    /// Where to: hf:OWNER/NAME, with @BRANCH for another branch than main, which must be there.
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: String,
    /// Type of the numbers.
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = NumberType::F32)]
    pub(crate) dtype: NumberType,
    /// First line of the commit's message.
    #[arg(long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Make the repository private, if there is none yet.
    #[arg(long)]
    pub(crate) private: bool,
}

/// The type of the numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NumberType {
    /// 32 bits.
    F32,
    /// IEEE's 16 bits.
    F16,
    /// The upper 16 bits of an f32.
    Bf16,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  gpt2 completions bash > ~/.local/share/bash-completion/completions/gpt2")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 man | man -l -
  gpt2 man --out ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Write a page for each command into this directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 train
  gpt2 train --run runs/demo --resume
  gpt2 train --data book.txt --model d6 --steps 2000
  gpt2 train --config configs/tinyshakespeare-cpu.toml --steps 200
  gpt2 train --data data/fineweb --model gpt2 --backend cuda --precision bf16 --dry-run
  gpt2 train --data data/fineweb --model gpt2 --backend cuda --devices 4 --global-batch 512

Every flag with a value is also a key of the run file, without the dashes. Flags win over the file.")]
#[expect(clippy::struct_excessive_bools, reason = "they are switches of a command line")]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) config: RunConfig,
    /// Read settings from a run file.
    #[arg(long = "config", value_name = "FILE", help_heading = "Run")]
    pub(crate) config_file: Option<PathBuf>,
    /// Go on from the newest whole checkpoint of --run.
    #[arg(long, help_heading = "Run")]
    pub(crate) resume: bool,
    /// Go on as with --resume if --run holds a whole checkpoint, else start: for jobs that are queued again.
    #[arg(long, help_heading = "Run", conflicts_with = "resume", requires = "run")]
    pub(crate) auto_resume: bool,
    /// Of several ranks: end if one gives no sign of life for so long.
    #[arg(long, value_name = "SECONDS", default_value_t = PEER_TIMEOUT, help_heading = "Machine", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) peer_timeout: u64,
    /// Print the plan and its cost, and train nothing.
    #[arg(long, help_heading = "Run")]
    pub(crate) dry_run: bool,
    /// Print lines instead of the dashboard, as where the output is no terminal.
    #[arg(long, help_heading = "Output", conflicts_with = "quiet")]
    pub(crate) plain: bool,
    /// Print nothing while training.
    #[arg(long, help_heading = "Output")]
    pub(crate) quiet: bool,
    /// Write TensorBoard's event files too, into tensorboard/ of the run directory.
    #[arg(long, help_heading = "Output")]
    pub(crate) tensorboard: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 sample --run runs/demo --prompt \"Once upon a time\"
  gpt2 sample --init models/gpt2-medium --prompt \"The tide\" --temperature 0.7 --top-p 0.9")]
pub(crate) struct SampleArgs {
    #[command(flatten)]
    pub(crate) weights: WeightsArgs,
    /// What the text starts with; empty for the start of a document. For a model with another vocabulary than GPT-2's,
    /// token numbers.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub(crate) prompt: String,
    /// Stop after so many tokens, if the text has not ended before.
    #[arg(long, value_name = "TOKENS", default_value_t = 256)]
    pub(crate) max_tokens: usize,
    /// Below 1 for safer text, above for wilder; 0 always takes the most probable token.
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    pub(crate) temperature: f32,
    /// Choose among the K most probable tokens; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 200, allow_negative_numbers = true)]
    pub(crate) top_k: usize,
    /// Choose among the most probable tokens that together reach probability P.
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub(crate) top_p: f32,
    /// The same seed gives the same text.
    #[arg(long, value_name = "N", default_value_t = 1337)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 eval runs/demo --data runs/demo/data
  gpt2 eval models/gpt2 --hellaswag hellaswag_val.bin --lambada lambada_test.jsonl
  gpt2 eval runs/fineweb/checkpoints/step-00018865 --tasks loss --data data/fineweb --max-batches 20

Tasks: loss (--data), hellaswag (--hellaswag), lambada (--lambada).")]
pub(crate) struct EvalArgs {
    /// Directory of a run, whose newest whole checkpoint is taken; of a checkpoint; or of a Hugging Face GPT-2.
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// What to evaluate [default: the tasks whose files are given].
    #[arg(long, value_name = "TASK,…", value_delimiter = ',', help_heading = "Tasks")]
    pub(crate) tasks: Vec<String>,
    /// Prepared data: loss, perplexity and bits per byte on its validation split.
    #[arg(long, value_name = "DIR", help_heading = "Tasks")]
    pub(crate) data: Option<PathBuf>,
    /// Multiple choice: HellaSwag's .jsonl, or llm.c's .bin with the model's own tokens.
    #[arg(long, value_name = "FILE", help_heading = "Tasks")]
    pub(crate) hellaswag: Option<PathBuf>,
    /// Last words: LAMBADA's .jsonl.
    #[arg(long, value_name = "FILE", help_heading = "Tasks")]
    pub(crate) lambada: Option<PathBuf>,
    /// Take the first N examples of each file [default: all].
    #[arg(long, value_name = "N", help_heading = "Tasks")]
    pub(crate) limit: Option<usize>,
    /// Of the loss, tokens in a window [default: the model's block].
    #[arg(long, value_name = "TOKENS", help_heading = "Tasks")]
    pub(crate) seq: Option<usize>,
    /// Of the loss, take the first N batches [default: all].
    #[arg(long, value_name = "N", help_heading = "Tasks")]
    pub(crate) max_batches: Option<usize>,
    /// Sequences that are computed at once.
    #[arg(long, value_name = "SEQUENCES", default_value_t = 32, help_heading = "Machine")]
    pub(crate) batch: usize,
    /// Write the results to a file as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) json: Option<PathBuf>,
    /// Write the score of each example to a file, as a line of JSON.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) per_example: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Time the training step itself: forward, backward, clip and update, as `gpt2 train` does them.
    Step(BenchStepArgs),
    /// The operations of `gpt2 profile` as a table, and nothing written.
    Operations(BenchOperationsArgs),
    /// Train exactly so many steps of a global batch, to compare systems by their wall time.
    FixedWork(FixedWorkArgs),
    /// Compare numbers of CPU threads, BLAS and instruction sets on the same work.
    Threads(ThreadsArgs),
    /// Compare numbers of GPUs, or on a CPU of processes, that train together on the same work.
    Scaling(ScalingArgs),
    /// Measure every combination of settings that a file lists, and other programs beside them.
    Sweep(SweepArgs),
    /// One configuration of a study, in a process of its own.
    #[command(hide = true)]
    Work {
        /// The directory that holds it.
        dir: PathBuf,
    },
}

/// Where a study's files go, and which other programs are measured with it.
#[derive(Debug, Args)]
pub(crate) struct StudyArgs {
    /// Directory of the study [default: studies/NAME]. The same command goes on with a study that was stopped.
    #[arg(long, value_name = "DIR", help_heading = "Study")]
    pub(crate) out: Option<PathBuf>,
    /// Seconds that each process may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 7200.0, help_heading = "Study")]
    pub(crate) time_limit: f64,
    /// Measure another program too, by a command that prints a line of JSON as bench/peers/step.py does.
    #[arg(long = "peer", value_name = "NAME=COMMAND", value_parser = peer, help_heading = "Study")]
    pub(crate) peers: Vec<(String, String)>,
    /// Print the configurations, and measure nothing.
    #[arg(long, help_heading = "Study")]
    pub(crate) dry_run: bool,
}

/// "pytorch=python step.py" as a name and a command.
fn peer(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if !name.trim().is_empty() && !command.trim().is_empty() => {
            Ok((name.trim().to_owned(), command.trim().to_owned()))
        }
        _ => Err("expected a name and a command, such as 'pytorch=python bench/peers/step.py …'".to_owned()),
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 bench fixed-work --backend cuda --precision bf16
  gpt2 bench fixed-work --backend cuda --precision bf16 --devices 4
  gpt2 bench fixed-work --scale 0.01 --dry-run
  gpt2 bench fixed-work --backend cuda --precision bf16 --scale 0.2 --repeats 3 --peer \
      'pytorch=python bench/peers/step.py --device cuda --dtype {precision} --batch {batch} --seq {seq}
       --grad-accum {grad_accum} --warmup 0 --steps {steps}'

A peer's command has {model}, {batch}, {seq}, {grad_accum}, {precision}, {devices} and {steps} replaced.
`gpt2 report scaling` compares such runs on different numbers of devices.")]
pub(crate) struct FixedWorkArgs {
    /// Preset of the model.
    #[arg(long, value_name = "PRESET", default_value = "gpt2")]
    pub(crate) model: String,
    /// Tokens in a sequence.
    #[arg(long, value_name = "TOKENS", default_value_t = fixed_work::SEQ)]
    pub(crate) seq: usize,
    /// Sequences in a micro-step.
    #[arg(long, value_name = "SEQUENCES", default_value_t = fixed_work::MICRO_BATCH)]
    pub(crate) batch: usize,
    /// Sequences in an optimizer step; the micro-steps follow from it.
    #[arg(long, value_name = "SEQUENCES", default_value_t = fixed_work::GLOBAL_BATCH)]
    pub(crate) global_batch: usize,
    /// Optimizer steps at the full length.
    #[arg(long, value_name = "N", default_value_t = fixed_work::STEPS, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) steps: u64,
    /// Share of the steps that is trained, such as 0.01.
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// How often it is done, for a mean and a standard deviation.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) repeats: u64,
    /// Real tokens; without, they are random.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Of the weights and of the random tokens.
    #[arg(long, value_name = "N", default_value_t = 1337)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Train on several GPUs, on a CPU in several processes: so many, or those with these numbers.
    #[arg(long, value_name = "N|N,…", help_heading = "Machine", conflicts_with = "device")]
    pub(crate) devices: Option<Devices>,
    /// CPU threads; all cores without.
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) study: StudyArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 bench threads --threads 1,2,4,8
  gpt2 bench threads --threads 1,2 --steps 11 --peer \
      'PyTorch=python bench/peers/step.py --device cpu --threads {threads} --batch {batch} --seq {seq}
       --warmup 0 --steps {steps}'

configs/gpt2-124m-cpu.toml is the same work as a run. A peer's command has {threads}, {model}, {batch}, {seq} and {steps}
replaced.")]
pub(crate) struct ThreadsArgs {
    /// Numbers of CPU threads [default: 1, 2, 4, … up to all cores].
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub(crate) threads: Vec<usize>,
    /// Preset of the model.
    #[arg(long, value_name = "PRESET", default_value = "gpt2")]
    pub(crate) model: String,
    /// Sequences in a step.
    #[arg(long, value_name = "SEQUENCES", default_value_t = 4)]
    pub(crate) batch: usize,
    /// Tokens in a sequence.
    #[arg(long, value_name = "TOKENS", default_value_t = 64)]
    pub(crate) seq: usize,
    /// Steps, warm-up included.
    #[arg(long, value_name = "N", default_value_t = 41, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) steps: u64,
    /// Train on these shards instead of the stories.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Start from these weights instead of random ones.
    #[arg(long, value_name = "PATH")]
    pub(crate) init: Option<PathBuf>,
    /// Of random weights and of the data's order.
    #[arg(long, value_name = "N", default_value_t = 1337)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) study: StudyArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 bench scaling --backend cuda --precision bf16 --ranks 1,2,4 --batch 64,128
  gpt2 bench scaling --mode weak --model d6 --seq 64 --ranks 1,2 --batch 4
  gpt2 bench scaling --backend cuda --precision bf16 --ranks 1,2 --batch 16 --micro-batch 4 --peer \
      'DDP=torchrun --standalone --nproc-per-node {ranks} bench/peers/step.py --device cuda --dtype {precision}
       --batch {batch} --seq {seq} --grad-accum {grad_accum} --warmup 0 --steps {steps}'

A step takes as long as its slowest rank, and speed-ups are of that. A peer's command has {ranks}, {model}, {batch} (the
sequences of a micro-step), {grad_accum}, {seq}, {precision} and {steps} replaced.")]
pub(crate) struct ScalingArgs {
    /// What stays the same with more ranks: the sequences of a step (strong), or those of each rank (weak).
    #[arg(long, value_name = "MODE", default_value = "strong")]
    pub(crate) mode: Mode,
    /// Numbers of ranks, each a process with a GPU of its own; on a CPU they share its cores.
    #[arg(long, value_name = "N,…", value_delimiter = ',', required = true)]
    pub(crate) ranks: Vec<usize>,
    /// Sequences of a step; with --mode weak, of each rank in a step.
    #[arg(long, value_name = "N,…", value_delimiter = ',', required = true)]
    pub(crate) batch: Vec<usize>,
    /// The most sequences of a micro-step [default: all of a rank's at once].
    #[arg(long, value_name = "SEQUENCES")]
    pub(crate) micro_batch: Option<usize>,
    /// Preset of the model.
    #[arg(long, value_name = "PRESET", default_value = "gpt2")]
    pub(crate) model: String,
    /// Share of the activations that dropout sets to 0.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    pub(crate) dropout: f64,
    /// Tokens in a sequence.
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    pub(crate) seq: usize,
    /// Steps, warm-up included.
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) steps: u64,
    /// How often each is measured.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) repeats: u64,
    /// Real tokens; without, they are random.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Of the weights and of the random tokens.
    #[arg(long, value_name = "N", default_value_t = 1337)]
    pub(crate) seed: u64,
    /// Where to compute.
    #[arg(long, value_name = "NAME", default_value_t, help_heading = "Machine")]
    pub(crate) backend: BackendChoice,
    /// Type of the operands of matrix products.
    #[arg(long, value_name = "TYPE", default_value = "f32", help_heading = "Machine", value_parser = precision_parser())]
    pub(crate) precision: Precision,
    /// CPU threads of each rank [default: all cores, shared].
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub(crate) threads: Option<usize>,
    /// Each rank keeps AdamW's moments of its share of the parameters alone.
    #[arg(long, help_heading = "Machine")]
    pub(crate) shard_optimizer: bool,
    #[command(flatten)]
    pub(crate) study: StudyArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Example of a file:
  time-limit-sec = 300
  baseline = { batch = 4 }
  [common]                 # settings of a run file
  backend = \"cuda\"
  seq = 1024
  steps = 40
  [axes]                   # every combination is measured
  batch = [4, 8, 16]
  precision = [\"bf16\", \"f32\"]
  [[peer]]                 # another program, with its own axes
  name = \"pytorch\"
  command = \"python bench/peers/step.py --device cuda --batch {batch} --dtype {precision} --compile {compile}\"
  axes.compile = [\"none\", \"default\"]")]
pub(crate) struct SweepArgs {
    /// The file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Directory of the study [default: studies/NAME, as the file is named]. The same command goes on with a study that
    /// was stopped.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print the configurations, and measure nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 bench step --batch 4 --seq 64
  gpt2 bench step --backend cuda --precision bf16 --batch 16 --seq 1024 --vs pytorch.json

Prints one line of JSON. Nothing is evaluated, sampled or saved.")]
pub(crate) struct BenchStepArgs {
    #[command(flatten)]
    pub(crate) work: BenchWork,
    /// Whether our kernels compute, or plain tensors, for comparison [default: kernels].
    #[arg(long, value_name = "WHICH", help_heading = "Machine", value_parser = operations_parser())]
    pub(crate) operations: Option<Operations>,
    /// Timed steps.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) steps: u64,
    /// Steps before those.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) warmup_steps: u64,
    /// Compare with the last line of this file, written by this command or by another program with the same keys.
    #[arg(long, value_name = "FILE")]
    pub(crate) vs: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  gpt2 bench operations --batch 4 --seq 256")]
pub(crate) struct BenchOperationsArgs {
    #[command(flatten)]
    pub(crate) work: BenchWork,
    #[command(flatten)]
    pub(crate) trials: TrialsArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 profile --batch 4 --seq 64
  gpt2 profile --backend cuda --precision bf16 --batch 8 --trace

Every other step is profiled, so that what profiling costs is measured too. A trace opens in https://ui.perfetto.dev.")]
pub(crate) struct ProfileArgs {
    #[command(flatten)]
    pub(crate) work: BenchWork,
    #[command(flatten)]
    pub(crate) trials: TrialsArgs,
    /// Write trace.json too: what the host queues and what the device does, for Perfetto.
    #[arg(long)]
    pub(crate) trace: bool,
    /// Take the top-down metrics from this recording of counters: the output of `perf stat -x,` or `-j`, or one with
    /// several measurements.
    #[arg(long, value_name = "FILE")]
    pub(crate) counters: Option<PathBuf>,
    /// Directory of the study [default: studies/profile].
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Print the settings, and measure nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// How much is profiled.
#[derive(Debug, Args)]
pub(crate) struct TrialsArgs {
    /// Steps that are profiled; as many others lie between them.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    pub(crate) trials: u64,
    /// Seconds that it may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600.0)]
    pub(crate) time_limit: f64,
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true,
    after_help = "Examples:
  gpt2 report runs/demo
  gpt2 report runs/a runs/b --out report
  gpt2 report studies/threads
  gpt2 report --watch runs/demo
  gpt2 report scaling runs/one runs/two
  gpt2 report verify studies/fixed-work"
)]
pub(crate) struct ReportArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ReportCommand>,
    /// Runs, or one study.
    #[arg(value_name = "DIR", required = true)]
    pub(crate) dirs: Vec<PathBuf>,
    /// Where the report goes [default: report/ in the first run; for a study, its own directory].
    #[arg(long, value_name = "DIR", conflicts_with = "watch")]
    pub(crate) out: Option<PathBuf>,
    /// Serve a page on the loopback address that follows the run, until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Port of that page; 0 takes any that is free.
    #[arg(long, value_name = "PORT", default_value_t = 0, requires = "watch")]
    pub(crate) port: u16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReportCommand {
    /// Compare runs of the same work on different numbers of devices.
    Scaling {
        /// The runs, or studies of runs such as of fixed work.
        #[arg(value_name = "RUN|STUDY", required = true, num_args = 1..)]
        runs: Vec<PathBuf>,
        /// Compare them although their work or configuration differs.
        #[arg(long)]
        allow_mismatch: bool,
    },
    /// Check the files of a run or a study against the schema and each other.
    Verify {
        /// The run or the study.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

/// What a benchmark computes, and where.
#[derive(Debug, Args)]
pub(crate) struct BenchWork {
    /// Preset of the model.
    #[arg(long, value_name = "PRESET", default_value = "gpt2")]
    pub(crate) model: String,
    /// Sequences in a micro-step.
    #[arg(long, value_name = "SEQUENCES", default_value_t = 4)]
    pub(crate) batch: usize,
    /// Tokens in a sequence.
    #[arg(long, value_name = "TOKENS", default_value_t = 1024)]
    pub(crate) seq: usize,
    /// Micro-steps in a step.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) grad_accum: usize,
    /// Real tokens; without, they are random.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Of the weights and of the random tokens.
    #[arg(long, value_name = "N", default_value_t = 1337)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) machine: MachineArgs,
    /// Activations that the backward pass recomputes instead of keeping them [default: none, or gelu on CUDA where a
    /// step would take more than half of the device's memory].
    #[arg(long, value_name = "WHAT", help_heading = "Machine", value_parser = recompute_parser())]
    pub(crate) recompute: Option<Recompute>,
    /// CPU threads; all cores without.
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub(crate) threads: Option<usize>,
}

/// Where to compute, and in what.
#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// Where to compute.
    #[arg(long, value_name = "NAME", default_value_t, help_heading = "Machine")]
    pub(crate) backend: BackendChoice,
    /// Number of the device, from 0.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Machine")]
    pub(crate) device: usize,
    /// Type of the operands of matrix products.
    #[arg(long, value_name = "TYPE", default_value = "f32", help_heading = "Machine", value_parser = precision_parser())]
    pub(crate) precision: Precision,
}

/// Where the weights come from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WeightsArgs {
    /// Directory of a run; its newest whole checkpoint is taken.
    #[arg(long, value_name = "DIR")]
    pub(crate) run: Option<PathBuf>,
    /// Weights of a GPT-2: a directory of Hugging Face's files, a checkpoint, a file of llm.c's or GGUF, or
    /// hf:OWNER/NAME on the Hugging Face hub.
    #[arg(long, value_name = "PATH")]
    pub(crate) init: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Encode text into token shards to train on.
    Prepare(PrepareArgs),
    /// Encode HellaSwag's JSONL into llm.c's file of multiple choice.
    PrepareHellaswag(PrepareHellaswagArgs),
    /// Show what a directory of shards holds, and find damage.
    Inspect(InspectArgs),
    /// Print the tokens of a text.
    Encode(EncodeArgs),
    /// Print the text of tokens.
    Decode(DecodeArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 data prepare --input book.txt --out data/book --val-fraction 0.1
  gpt2 data prepare --input input.txt --out data/tinyshakespeare \\
      --split-documents-on blank-line --val-tokens 32768
  gpt2 data prepare --input 'fineweb/*.parquet' --out data/fineweb --val-tokens 100000000

Each document gets <|endoftext|> before it. Files of JSON lines and Parquet rows are documents already.")]
pub(crate) struct PrepareArgs {
    /// Text to read: files, directories or patterns of .txt, .md, .jsonl and .parquet, also with .gz or .zst; or
    /// hf:datasets/OWNER/NAME/PATTERN on the Hugging Face hub.
    #[arg(long, value_name = "PATH", required = true, num_args = 1.., help_heading = "Input")]
    pub(crate) input: Vec<PathBuf>,
    /// Field of a JSON line, or column of a Parquet file, that holds the text; `meta.text` is a field within another.
    #[arg(long, value_name = "NAME", default_value = "text", help_heading = "Input")]
    pub(crate) field: String,
    /// Where documents begin within a plain text file [default: a file is one document].
    #[arg(long, value_name = "WHERE", help_heading = "Input")]
    pub(crate) split_documents_on: Option<SplitOn>,
    /// Directory for the shards.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) out: PathBuf,
    /// Tokens in a shard.
    #[arg(long, value_name = "TOKENS", default_value_t = 100_000_000, help_heading = "Output")]
    pub(crate) shard_tokens: u64,
    /// What the names of the shards begin with, as in PREFIX_train_000000.bin.
    #[arg(long, value_name = "PREFIX", default_value = "tokens", help_heading = "Output")]
    pub(crate) prefix: String,
    /// Go on with a preparation that was interrupted.
    #[arg(long, help_heading = "Output")]
    pub(crate) resume: bool,
    /// Name each file that is left out, not only how many of each kind.
    #[arg(long, help_heading = "Output")]
    pub(crate) list_skipped: bool,
    #[command(flatten)]
    pub(crate) validation: ValidationArgs,
    /// Threads that encode [default: as many as there are cores].
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
}

/// How much of the beginning of the text is held out.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct ValidationArgs {
    /// Hold out the first tokens for validation.
    #[arg(long = "val-tokens", value_name = "TOKENS", help_heading = "Validation, one of")]
    pub(crate) tokens: Option<u64>,
    /// Hold out the first fraction of the text, in (0, 1).
    #[arg(
        long = "val-fraction",
        value_name = "FRACTION",
        allow_negative_numbers = true,
        help_heading = "Validation, one of"
    )]
    pub(crate) fraction: Option<f64>,
    /// Hold out the first documents.
    #[arg(
        long = "val-documents",
        value_name = "DOCUMENTS",
        help_heading = "Validation, one of"
    )]
    pub(crate) documents: Option<u64>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SplitOn {
    /// After each blank line, as between the speeches of a play.
    BlankLine,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  gpt2 data prepare-hellaswag --input hellaswag_val.jsonl --out hellaswag_val.bin")]
pub(crate) struct PrepareHellaswagArgs {
    /// JSON lines with `ctx`, `label` and four `endings`.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// The file to write.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  gpt2 data inspect data/book

Exits with 1 if anything is damaged.")]
pub(crate) struct InspectArgs {
    /// Directory of shards.
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 data encode 'Hello world'
  gpt2 data encode --special < story.txt")]
pub(crate) struct EncodeArgs {
    /// The text [default: standard input].
    #[arg(value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// Let <|endoftext|> stand for the token of that name.
    #[arg(long)]
    pub(crate) special: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  gpt2 data decode 15496 995
  gpt2 data encode 'Hello world' | gpt2 data decode")]
pub(crate) struct DecodeArgs {
    /// Token numbers, separated by spaces or commas [default: standard input].
    #[arg(value_name = "IDS")]
    pub(crate) ids: Vec<String>,
}

impl Cli {
    /// Reads the command line. There is none to run if help or the version was asked for, which are then printed.
    ///
    /// # Errors
    /// [`CliError::Usage`].
    pub(crate) fn read() -> Result<Option<Self>, CliError> {
        let error = match Self::try_parse() {
            Ok(cli) => return Ok(Some(cli)),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                printer::print_styled(&error.render().ansi().to_string())?;
                Ok(None)
            }
            _ => Err(usage(&error.render().to_string(), tip(&error, Typed::here().command()))),
        }
    }
}

/// The flag of `command` that another program calls `flag`, give or take a letter.
fn other_name(flag: &str, command: Option<&clap::Command>) -> Option<&'static str> {
    let ours = gpt2_base::other_name(flag)?;
    let has = |arg: &clap::Arg| arg.get_long() == Some(ours);
    command?.get_arguments().any(has).then_some(ours)
}

/// What to type instead, where clap does not know it.
fn tip(error: &clap::Error, command: &str) -> Option<String> {
    match error.kind() {
        ErrorKind::UnknownArgument => meant(error, command),
        ErrorKind::ValueValidation => backend_as_device(error),
        _ => None,
    }
}

/// What to type in place of a flag that does not exist, if another program has it.
fn meant(error: &clap::Error, command: &str) -> Option<String> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let name = flag.trim_start_matches('-').replace('_', "-");
    if let Some((_, instead)) = WITHOUT_FLAG.iter().find(|(theirs, _)| *theirs == name) {
        return Some((*instead).to_owned());
    }
    let cli = Cli::command();
    let ours = other_name(flag, cli.find_subcommand(command))?;
    Some(format!("a similar argument exists: '--{ours}'"))
}

/// Settings of other programs that are none here, and what does their work.
const WITHOUT_FLAG: [(&str, &str); 4] = [
    ("compile", "leave it out: the kernels need no switch"),
    (
        "wandb-log",
        "`--tensorboard` writes event files, and each run has its numbers in metrics.jsonl",
    ),
    (
        "always-save-checkpoint",
        "`--checkpoint-every` and `--keep` say which checkpoints are kept",
    ),
    (
        "num-samples",
        "one command writes one text; another `--seed` gives another",
    ),
];

/// The flags for a device as PyTorch names it, `cuda:1`.
fn backend_as_device(error: &clap::Error) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let value = text(ContextKind::InvalidArg)
        .filter(|argument| argument.starts_with("--device "))
        .and(text(ContextKind::InvalidValue))?;
    let (name, number) = value.split_once(':').unwrap_or((value, "0"));
    let backend = match name {
        "cpu" => "ndarray",
        "cuda" | "gpu" => "cuda",
        "mps" | "vulkan" | "metal" | "wgpu" => "wgpu",
        _ => return None,
    };
    let number = number.parse::<usize>().ok().filter(|&number| number > 0);
    let device = number.map(|number| format!(" --device {number}")).unwrap_or_default();
    Some(format!("`--backend {backend}{device}`"))
}

/// clap's message as one line, and its tip. The usage that it appends is left to `--help`.
fn usage(rendered: &str, meant: Option<String>) -> CliError {
    let one_line = |paragraph: &str| paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let mut paragraphs = rendered.split("\n\n").map(one_line);
    let message = paragraphs.next().unwrap_or_default();
    let tip = paragraphs.find_map(|paragraph| paragraph.strip_prefix("tip: ").map(str::to_owned));
    CliError::Usage {
        message: message.trim_start_matches("error: ").to_owned(),
        hint: meant.or(tip).unwrap_or_else(|| "--help lists what there is".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_programs_lead_to_flags_that_exist() {
        let cli = Cli::command();
        for (theirs, ours) in gpt2_base::OTHER_NAMES {
            let is_of_sampling = ["max-new-tokens", "start"].contains(&theirs);
            let command = if is_of_sampling { "sample" } else { "train" };
            let command = cli.find_subcommand(command);
            assert_eq!(other_name(theirs, command), Some(ours));
            let long = format!("--{theirs}");
            let taken = |arg: &clap::Arg| arg.get_long() == long.strip_prefix("--");
            assert!(
                !command.unwrap().get_arguments().any(taken),
                "{theirs} is a flag of ours"
            );
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    fn message_and_hint(line: &str) -> (String, String) {
        let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
        match usage(
            &error.render().to_string(),
            tip(&error, line.split(' ').nth(1).unwrap()),
        ) {
            CliError::Usage { message, hint } => (message, hint),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn mistakes_become_one_line_and_a_hint() {
        let (message, hint) = message_and_hint("gpt2 sample --run a --backend gpu");
        assert_eq!(
            message,
            "invalid value 'gpu' for '--backend <NAME>' [possible values: auto, ndarray, flex, wgpu, cuda]"
        );
        assert_eq!(hint, "a similar value exists: 'wgpu'");
        let (message, hint) = message_and_hint("gpt2 sample --run a --prompts b");
        assert_eq!(message, "unexpected argument '--prompts' found");
        assert_eq!(hint, "a similar argument exists: '--prompt'");
        let (message, hint) = message_and_hint("gpt2 train --max_iters 100");
        assert_eq!(message, "unexpected argument '--max_iters' found");
        assert_eq!(hint, "a similar argument exists: '--steps'");
        for slip in ["--max-step", "--max-iter", "--step"] {
            let (_, hint) = message_and_hint(&format!("gpt2 train {slip} 100"));
            assert_eq!(hint, "a similar argument exists: '--steps'", "{slip}");
        }
        let (message, hint) = message_and_hint("gpt2 train --compile=False");
        assert_eq!(message, "unexpected argument '--compile' found");
        assert_eq!(hint, "leave it out: the kernels need no switch");
        for (device, hint) in [
            ("cpu", "`--backend ndarray`"),
            ("cuda", "`--backend cuda`"),
            ("cuda:1", "`--backend cuda --device 1`"),
            ("mps", "`--backend wgpu`"),
            ("first", "--help lists what there is"),
        ] {
            let line = format!("gpt2 train --device={device}");
            assert_eq!(message_and_hint(&line).1, hint, "{line}");
        }
        let (message, hint) = message_and_hint("gpt2 sample");
        assert_eq!(hint, "--help lists what there is");
        assert_eq!(
            message,
            "the following required arguments were not provided: <--run <DIR>|--init <PATH>>"
        );
        let (message, _) = message_and_hint("gpt2 data prepare --input a --out b --val-tokens 1 --val-fraction 0.1");
        assert_eq!(
            message,
            "the argument '--val-tokens <TOKENS>' cannot be used with '--val-fraction <FRACTION>'"
        );
    }
}
