//! The tokens of a run: shards that are there, or a corpus that the run makes itself.

use crate::error::TrainError;
use crate::plan::DataSummary;
use gpt2_data::demo::{self, DemoOptions};
use gpt2_data::{DataIdentity, Manifest, ShardWriter, Split, SplitMix64, TokenStream, VOCAB_SIZE};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the tokens of a run come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// A directory of shards.
    Directory(PathBuf),
    /// The story corpus, written into the run directory.
    Demo,
    /// Tokens drawn evenly from the vocabulary, written into the run directory: nothing can be learned from them.
    Random {
        /// How many.
        tokens: u64,
        /// Of the draws.
        seed: u64,
    },
}

impl DataSource {
    /// The name of the demo corpus.
    pub const DEMO: &str = "demo";

    /// A short name, for people and for run directories.
    pub fn name(&self) -> String {
        match self {
            Self::Directory(dir) => dir
                .file_name()
                .map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned()),
            Self::Demo => Self::DEMO.to_owned(),
            Self::Random { .. } => "random".to_owned(),
        }
    }

    /// Opens and checks the shards. A corpus that is to be made is not made yet.
    ///
    /// # Errors
    /// [`TrainError::Data`] if a shard is not there or damaged.
    pub(crate) fn open(self, with_validation: bool) -> Result<Data, TrainError> {
        match &self {
            Self::Directory(dir) => Ok(Data::Open(Streams::open(dir, self.name(), with_validation)?)),
            Self::Demo => {
                let DemoOptions {
                    train_tokens,
                    val_tokens,
                    ..
                } = DemoOptions::default();
                Ok(self.unmade(train_tokens, val_tokens))
            }
            Self::Random { tokens, .. } => Ok(self.unmade(*tokens, 0)),
        }
    }

    fn unmade(&self, train_tokens: u64, val_tokens: u64) -> Data {
        Data::Unmade(
            self.clone(),
            DataSummary {
                name: self.name(),
                train_tokens,
                val_tokens,
                floor: None,
            },
        )
    }

    /// Makes the corpus in `dir`.
    fn make(&self, dir: &Path) -> Result<(), TrainError> {
        match *self {
            Self::Directory(_) => {}
            Self::Demo => {
                demo::write(dir, &DemoOptions::default())?;
            }
            Self::Random { tokens, seed } => {
                fs::create_dir_all(dir).map_err(|source| TrainError::io("create", dir, source))?;
                let mut random = SplitMix64::new(seed);
                let mut shard = ShardWriter::create(dir.join("random_train_000000.bin"))?;
                for _ in 0..tokens {
                    shard.push((random.next_u64() % VOCAB_SIZE as u64) as u16)?;
                }
                shard.finish()?;
            }
        }
        Ok(())
    }
}

/// The data of a run before its directory is taken.
#[derive(Debug)]
pub(crate) enum Data {
    /// To be made in the run directory, and what it will come to.
    Unmade(DataSource, DataSummary),
    Open(Streams),
}

impl Data {
    pub(crate) fn summary(&self) -> &DataSummary {
        match self {
            Self::Unmade(_, summary) => summary,
            Self::Open(streams) => &streams.summary,
        }
    }

    /// The streams, after making in `dir` what is to be made.
    pub(crate) fn into_streams(self, dir: &Path, with_validation: bool) -> Result<Streams, TrainError> {
        match self {
            Self::Open(streams) => Ok(streams),
            Self::Unmade(source, summary) => {
                source.make(dir)?;
                Streams::open(dir, summary.name, with_validation)
            }
        }
    }
}

/// Shards, opened and checked.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    pub(crate) summary: DataSummary,
    /// What the tokens are, wherever they lie.
    pub(crate) identity: DataIdentity,
    pub(crate) training: Arc<TokenStream>,
    pub(crate) validation: Option<Arc<TokenStream>>,
}

impl Streams {
    pub(crate) fn open(dir: &Path, name: String, with_validation: bool) -> Result<Self, TrainError> {
        let training = Arc::new(TokenStream::open(dir, Split::Train)?);
        let validation = if with_validation {
            Some(Arc::new(TokenStream::open(dir, Split::Val)?))
        } else {
            None
        };
        let summary = DataSummary {
            name,
            train_tokens: training.len(),
            val_tokens: validation.as_ref().map_or(0, |stream| stream.len()),
            floor: Manifest::read(dir)?.and_then(|manifest| manifest.val.entropy_nats_per_token),
        };
        Ok(Self {
            summary,
            identity: DataIdentity::of(dir)?,
            training,
            validation,
        })
    }
}
