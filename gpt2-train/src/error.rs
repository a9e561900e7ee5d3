//! Everything that can stop a run, from a misspelt key to a loss that is not a number.

use gpt2_base::units::{bytes, grouped};
use gpt2_data::DataIdentity;
use gpt2_eval::EvalError;
use gpt2_model::ModelError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate. Each message is one line: what was found, what was expected and the fix.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The run file is not TOML.
    #[error("{path}:{line}: not valid TOML: {reason}", path = path.display())]
    ConfigSyntax {
        /// The run file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the parser met.
        reason: String,
    },
    /// The run file holds a key that is not known.
    #[error(
        "{path}:{line}: unknown key `{key}`{hint}",
        path = path.display(),
        hint = nearest.as_ref().map_or_else(
            || "; keys are the long flags of `gpt2 train`, without sections".to_owned(),
            |known| format!("; did you mean `{known}`?"),
        )
    )]
    UnknownKey {
        /// The run file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key as it was written.
        key: String,
        /// The closest known key, if one is close.
        nearest: Option<String>,
    },
    /// A key of the run file holds a value of another type, or a word that is not known.
    #[error("{path}:{line}: key `{key}`: {reason}", path = path.display())]
    KeyType {
        /// The run file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The key.
        key: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// Settings cannot be saved.
    #[error("cannot write the settings as TOML: {source}; use paths in UTF-8")]
    NotToml {
        /// The cause.
        #[source]
        source: toml::ser::Error,
    },
    /// A key or flag holds a value that cannot work.
    #[error("`{key}` is {value}, expected {expected}; {fix}")]
    InvalidValue {
        /// The key, spelt as in the run file and the flags.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        expected: String,
        /// What to do about it.
        fix: String,
    },
    /// Two keys say the same thing in two ways.
    #[error("`{first}` and `{second}` are both set, expected one of them; remove either")]
    Conflict {
        /// One key.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A run is resumed with settings that would make it another run.
    #[error(
        "{path}: cannot resume with other settings: {differences}; leave them out, or start a new run",
        path = path.display(), differences = listed(differences)
    )]
    ResumeMismatch {
        /// The plan of the run that is being resumed.
        path: PathBuf,
        /// One entry a key.
        differences: Vec<Difference>,
    },
    /// The model cannot be scored on a task.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// The data is not what the run was trained on.
    #[error(
        "{path} is not the data of this run: expected {expected}, found {found}; set `data` to where the same shards lie, or \
         start a new run",
        path = path.display(), expected = described(expected), found = described(found)
    )]
    DataChanged {
        /// The directory.
        path: PathBuf,
        /// The data of the run.
        expected: Box<DataIdentity>,
        /// What is in the directory.
        found: Box<DataIdentity>,
    },
    /// A run of several processes was to be trained in one.
    #[error("`devices` is {ranks}, but this is one process; have a launcher start {ranks} processes, or set it to 1")]
    NotInGroup {
        /// How many ranks there should be.
        ranks: usize,
    },
    /// The ranks cannot go on together.
    #[error(transparent)]
    Ranks(gpt2_ranks::RanksError),
    /// Another rank cannot begin.
    #[error("rank {rank} cannot begin: {message}")]
    RankCannotBegin {
        /// Its number.
        rank: usize,
        /// Its error.
        message: String,
    },
    /// This rank could begin, another one cannot, and rank 0 says why.
    #[error("another rank cannot begin; see what rank 0 says")]
    OtherRank,
    /// The ranks were not started alike.
    #[error(
        "rank {rank} differs from rank 0 in {what}; start all ranks alike: {own} on rank 0, {other} on rank {rank}"
    )]
    RanksDiffer {
        /// The rank.
        rank: usize,
        /// In what.
        what: String,
        /// What rank 0 has.
        own: String,
        /// What that rank has.
        other: String,
    },
    /// The weights of the ranks are not the same any more.
    #[error(
        "the weights of rank {rank} differ from those of rank 0 after step {step}: its device does not compute what the others          do; resume from a checkpoint before, on other devices"
    )]
    ReplicasDiffer {
        /// The rank.
        rank: usize,
        /// The step.
        step: u64,
    },
    /// The model's configuration or a file of weights is wrong.
    #[error(transparent)]
    Model(ModelError),
    /// The data is wrong or cannot be read.
    #[error(transparent)]
    Data(#[from] gpt2_data::DataError),
    /// The device cannot be had, or does not compute in the precision that was asked for.
    #[error(transparent)]
    Backend(#[from] gpt2_backend::BackendError),
    /// A file or directory could not be read or written.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried: `read`, `write`, `create` and so on.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A run ended with an error, and its last checkpoint could not be written.
    #[error("{error}; and its last checkpoint was not written: {checkpoint}")]
    NotSavedEither {
        /// What ended the run.
        error: Box<Self>,
        /// What happened to the checkpoint.
        checkpoint: Box<Self>,
    },
    /// The disk is full.
    #[error("cannot {action} {path}: the disk is full; free some space or lower `keep`, then resume", path = path.display())]
    DiskFull {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The run directory cannot be created or written.
    #[error("run directory {path} is not writable: {source}; choose another", path = path.display())]
    RunDirUnwritable {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The run directory holds a run already.
    #[error("run directory {path} already holds a run; resume it, or choose another", path = path.display())]
    RunDirTaken {
        /// The directory.
        path: PathBuf,
    },
    /// Another process trains in this run directory.
    #[error(
        "run directory {path} is in use{by}; wait for that run to end, or choose another",
        path = path.display(), by = pid.map(|pid| format!(" by process {pid}")).unwrap_or_default()
    )]
    RunDirInUse {
        /// The directory.
        path: PathBuf,
        /// The process, if it could be read.
        pid: Option<u32>,
    },
    /// A directory holds no run.
    #[error("{path} holds no run: {missing} is missing", path = path.display())]
    NoRun {
        /// The directory.
        path: PathBuf,
        /// The file that every run has.
        missing: &'static str,
    },
    /// A file of records that this program wrote does not parse.
    #[error("{0}; remove that line or start a new run")]
    RecordDamaged(#[from] gpt2_records::DamagedRecord),
    /// A file of a checkpoint is not what its manifest says.
    #[error("checkpoint {path} is damaged: expected {expected}, found {found}", path = path.display())]
    CheckpointDamaged {
        /// The file.
        path: PathBuf,
        /// What the manifest promises.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file of a checkpoint is not there.
    #[error("checkpoint {path} is incomplete: expected it to hold {missing}", path = path.display())]
    CheckpointIncomplete {
        /// The checkpoint's directory.
        path: PathBuf,
        /// The missing file.
        missing: String,
    },
    /// There is no whole checkpoint to go on from.
    #[error("no whole checkpoint in {path}", path = path.display())]
    NoCheckpoint {
        /// The directory of checkpoints.
        path: PathBuf,
    },
    /// The loss or the gradient is not a finite number. The weights are those of the step before.
    #[error(
        "{what} is {value} at step {step} (batch at position {position} of the data), expected a finite number; {blame}",
        blame = loaded.as_ref().map_or_else(
            || format!("`lr` is {lr} and `warmup` {warmup}"),
            |weights| format!("no update came before it to the weights in {}", weights.display()),
        )
    )]
    NonFinite {
        /// Which quantity.
        what: Quantity,
        /// Its value.
        value: f64,
        /// The optimizer step that was not taken, counted from 1.
        step: u64,
        /// The batch's first window in the order of the data.
        position: u64,
        /// The highest learning rate of the run.
        lr: f64,
        /// Its steps of warm-up.
        warmup: u64,
        /// The run's directory.
        run: PathBuf,
        /// Where the weights came from, if they were loaded and no update came before this step.
        loaded: Option<PathBuf>,
    },
    /// The model and its batch do not fit into memory.
    #[error(
        "batch {batch} of {seq} tokens does not fit into memory{sizes}; {fix}",
        sizes = needed_and_available(*needed_bytes, *available_bytes),
        fix = largest_batch.map_or_else(
            || "not even one sequence fits: choose a smaller `model` or `seq`".to_owned(),
            |largest| format!(
                "the largest that fits is `batch` {largest} ({})",
                if *may_accumulate {
                    "raise `grad-accum` to keep the global batch"
                } else {
                    "with `grad-accum` 1: the sum of gradients does not fit"
                }
            ),
        )
    )]
    OutOfMemory {
        /// Sequences in a micro-step.
        batch: u64,
        /// Tokens in a sequence.
        seq: u64,
        /// What the run would need, if known.
        needed_bytes: Option<u64>,
        /// What there is, if known.
        available_bytes: Option<u64>,
        /// The largest batch that fits; none if even one sequence does not.
        largest_batch: Option<u64>,
        /// Whether it fits as one of several micro-steps.
        may_accumulate: bool,
    },
}

fn described(data: &DataIdentity) -> String {
    format!(
        "{} training and {} validation tokens (SHA-256 {}…)",
        grouped(data.train_tokens),
        grouped(data.val_tokens),
        &data.sha256[..8.min(data.sha256.len())]
    )
}

/// A setting that is not what it was when the run was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// Its value then.
    pub saved: String,
    /// Its value now.
    pub wanted: String,
}

fn listed(differences: &[Difference]) -> String {
    let one = |Difference { key, saved, wanted }: &Difference| format!("`{key}` was {saved}, now {wanted}");
    differences.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What was found not to be finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// The training loss.
    Loss,
    /// The global norm of the gradient.
    GradientNorm,
    /// The validation loss, after the step.
    ValidationLoss,
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loss => "the loss",
            Self::GradientNorm => "the gradient's norm",
            Self::ValidationLoss => "the validation loss",
        })
    }
}

impl From<ModelError> for TrainError {
    /// A full disk is the same to the reader whatever was being written.
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Io { path, source } if is_full(&source) => Self::io("write", path, source),
            other => Self::Model(other),
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl TrainError {
    /// Wraps an I/O error; a full disk becomes [`TrainError::DiskFull`].
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        if is_full(&source) {
            Self::DiskFull { action, path, source }
        } else {
            Self::Io { action, path, source }
        }
    }
}

fn needed_and_available(needed: Option<u64>, available: Option<u64>) -> String {
    match (needed, available) {
        (Some(needed), Some(available)) => format!(" ({} needed, {} there)", bytes(needed), bytes(available)),
        (Some(needed), None) => format!(" ({} needed)", bytes(needed)),
        (None, Some(available)) => format!(" ({} there)", bytes(available)),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = TrainError::io("write", "a/metrics.jsonl", io::ErrorKind::StorageFull.into());
        assert!(matches!(full, TrainError::DiskFull { .. }));
        let weights = ModelError::Io {
            path: "a/model.safetensors".into(),
            source: io::ErrorKind::StorageFull.into(),
        };
        assert!(matches!(weights.into(), TrainError::DiskFull { .. }));
        assert_eq!(
            full.to_string(),
            "cannot write a/metrics.jsonl: the disk is full; free some space or lower `keep`, then resume"
        );
        let other = TrainError::io("read", "a", io::ErrorKind::NotFound.into());
        assert_eq!(other.to_string(), "cannot read a: entity not found");
    }

    #[test]
    fn out_of_memory_names_the_batch_that_fits() {
        let error = |largest_batch, may_accumulate| TrainError::OutOfMemory {
            batch: 64,
            seq: 1024,
            needed_bytes: Some(96 << 30),
            available_bytes: Some(80 << 30),
            largest_batch,
            may_accumulate,
        };
        assert!(
            error(Some(4), false)
                .to_string()
                .ends_with("`batch` 4 (with `grad-accum` 1: the sum of gradients does not fit)")
        );
        assert_eq!(
            error(Some(48), true).to_string(),
            "batch 64 of 1024 tokens does not fit into memory (96.0 GiB needed, 80.0 GiB there); \
             the largest that fits is `batch` 48 (raise `grad-accum` to keep the global batch)"
        );
        assert!(
            error(None, false)
                .to_string()
                .ends_with("not even one sequence fits: choose a smaller `model` or `seq`")
        );
    }

    #[test]
    fn a_loss_that_is_not_finite_names_step_and_batch() {
        let error = |loaded: Option<&str>| TrainError::NonFinite {
            what: Quantity::Loss,
            value: f64::NAN,
            step: 17,
            position: 128,
            lr: 6e-4,
            warmup: 700,
            run: "runs/a".into(),
            loaded: loaded.map(PathBuf::from),
        };
        assert_eq!(
            error(None).to_string(),
            "the loss is NaN at step 17 (batch at position 128 of the data), expected a finite number; `lr` is 0.0006 and \
             `warmup` 700"
        );
        let message = error(Some("models/a")).to_string();
        assert!(
            message.ends_with("; no update came before it to the weights in models/a"),
            "{message}"
        );
    }

    #[test]
    fn a_checkpoint_says_what_is_wrong_with_it() {
        let damaged = TrainError::CheckpointDamaged {
            path: "c/model.bin".into(),
            expected: "12 bytes".into(),
            found: "3 bytes".into(),
        };
        assert_eq!(
            damaged.to_string(),
            "checkpoint c/model.bin is damaged: expected 12 bytes, found 3 bytes"
        );
        let incomplete = TrainError::CheckpointIncomplete {
            path: "c".into(),
            missing: "model.bin".into(),
        };
        assert_eq!(
            incomplete.to_string(),
            "checkpoint c is incomplete: expected it to hold model.bin"
        );
        let none = TrainError::NoCheckpoint { path: "c".into() };
        assert!(none.to_string().starts_with("no whole checkpoint in c"));
    }
}
