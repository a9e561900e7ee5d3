//! TensorBoard's event files: scalars and text of a run.
//!
//! An event file is a TFRecord file of protocol buffers, named `events.out.tfevents.<seconds>.<host>.<pid>`. A run that
//! is resumed writes a new file into the same directory, and TensorBoard shows all of them as one run. Nothing here
//! knows what is worth showing.
//!
//! The crates that exist were not taken: `tensorboard-rs` 0.5 stands on `protobuf` 2 and `image` 0.23, for images that
//! a run has none of; `tfrecord` 0.15 stands on `prost` 0.12, `itertools` 0.11 and `num`, to read data sets. What is
//! needed is a few small messages and a frame of sixteen bytes: `prost` encodes the messages, and `crc32c` computes the
//! checksums.
//!
//! ```
//! use gpt2_tensorboard::EventFile;
//!
//! let dir = std::env::temp_dir().join(format!("gpt2-tensorboard-{}", std::process::id()));
//! let mut events = EventFile::create(&dir, "laptop")?;
//! events.scalar("loss/train", 1, 10.98)?;
//! events.text("sample", 1, "Once upon a time")?;
//! events.flush()?;
//! # std::fs::remove_dir_all(&dir).unwrap();
//! # Ok::<(), gpt2_tensorboard::TensorBoardError>(())
//! ```

mod error;
mod event_file;
mod messages;
mod record;

pub use error::TensorBoardError;
pub use event_file::EventFile;
