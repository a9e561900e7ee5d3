//! The stream of tokens divided into splits and shards, with a progress file that is written after each shard.

use std::path::Path;

use super::event::PrepareEvent;
use super::pipeline::Position;
use super::progress::{self, Progress};
use crate::error::DataError;
use crate::format::{Split, documents};
use crate::manifest::{Manifest, ShardManifest};
use crate::shard_writer::ShardWriter;

/// Writes one preparation's shards.
pub(super) struct Output<'a> {
    dir: &'a Path,
    prefix: &'a str,
    shard_tokens: u64,
    /// The state up to the last finished shard, and of the validation limit up to the last token.
    progress: Progress,
    /// Tokens that come once more because an earlier run has written them.
    skip: u64,
    open: Option<OpenShard>,
}

struct OpenShard {
    split: Split,
    writer: ShardWriter,
    documents: u64,
}

impl<'a> Output<'a> {
    /// Begins where `progress` ends. The progress file is written before anything else, so that whatever a kill leaves in the
    /// directory is known to be ours.
    pub(super) fn begin(
        dir: &'a Path,
        prefix: &'a str,
        shard_tokens: u64,
        progress: Progress,
    ) -> Result<Self, DataError> {
        progress.write(dir)?;
        let skip = progress.skip_tokens;
        Ok(Self {
            dir,
            prefix,
            shard_tokens,
            progress,
            skip,
            open: None,
        })
    }

    /// Documents so far.
    pub(super) fn documents(&self) -> u64 {
        let finished: u64 = Split::ALL
            .iter()
            .map(|&split| self.progress.manifest.split(split).documents)
            .sum();
        finished + self.open.as_ref().map_or(0, |shard| shard.documents)
    }

    /// Tokens so far.
    pub(super) fn tokens(&self) -> u64 {
        self.progress.tokens() + self.open.as_ref().map_or(0, |shard| shard.writer.tokens())
    }

    /// Takes the tokens of the batch that begins at `start`.
    pub(super) fn write(
        &mut self,
        start: Position,
        tokens: &[u16],
        on_event: &dyn Fn(PrepareEvent),
    ) -> Result<(), DataError> {
        let skipped = usize::try_from(self.skip).map_or(tokens.len(), |skip| skip.min(tokens.len()));
        self.skip -= skipped as u64;
        let mut used = skipped;
        while used < tokens.len() {
            let rest = &tokens[used..];
            let (split, available) = match self.progress.val_limit.map(|limit| limit.take(rest)) {
                Some(0) => {
                    // From here on it is training data.
                    self.progress.val_limit = None;
                    self.finish_shard(start, used, on_event)?;
                    continue;
                }
                Some(count) => (Split::Val, count),
                None => (Split::Train, rest.len()),
            };
            let shard = match &mut self.open {
                Some(shard) => shard,
                none => none.insert(self.progress.begin_shard(self.dir, self.prefix, split)?),
            };
            let room = self.shard_tokens - shard.writer.tokens();
            let taken = &rest[..usize::try_from(room).map_or(available, |room| room.min(available))];
            shard.writer.extend(taken)?;
            shard.documents += documents(taken);
            let full = shard.writer.tokens() == self.shard_tokens;
            self.progress.val_limit = self.progress.val_limit.map(|limit| limit.after(taken));
            used += taken.len();
            if full {
                self.finish_shard(start, used, on_event)?;
            }
        }
        Ok(())
    }

    /// Ends the preparation and writes the manifest.
    pub(super) fn finish(&mut self, on_event: &dyn Fn(PrepareEvent)) -> Result<Manifest, DataError> {
        let tokens = self.tokens();
        if tokens == 0 {
            let sources = self.progress.manifest.sources.len();
            return Err(DataError::EmptyInput { sources });
        }
        let trains = matches!(&self.open, Some(shard) if shard.split == Split::Train);
        if !trains && self.progress.manifest.train.tokens == 0 {
            self.open = None;
            self.progress.delete_output(self.dir)?;
            return Err(DataError::NothingLeftToTrain { tokens });
        }
        self.close_shard(on_event)?;
        self.progress.complete(self.dir)
    }

    /// Gives up after an error. What was finished stays for a resumed run; if that is nothing, the directory is left as
    /// it was found.
    pub(super) fn abort(&mut self) -> Result<(), DataError> {
        self.open = None;
        if self.progress.is_empty() {
            progress::remove_progress(self.dir)
        } else {
            Ok(())
        }
    }

    /// Finishes the open shard, if any, and records that of the batch at `start` the first `used` tokens are safe.
    fn finish_shard(&mut self, start: Position, used: usize, on_event: &dyn Fn(PrepareEvent)) -> Result<(), DataError> {
        if self.close_shard(on_event)? {
            self.progress.position = start;
            self.progress.skip_tokens = used as u64;
            self.progress.write(self.dir)?;
        }
        Ok(())
    }

    /// Finishes the open shard and enters it into the manifest; `false` if none is open.
    fn close_shard(&mut self, on_event: &dyn Fn(PrepareEvent)) -> Result<bool, DataError> {
        let Some(OpenShard {
            split,
            writer,
            documents,
        }) = self.open.take()
        else {
            return Ok(false);
        };
        let path = writer.path().to_path_buf();
        let tokens = writer.finish()?;
        let shard = ShardManifest::of_file(&path, tokens)?;
        on_event(PrepareEvent::ShardFinished {
            split,
            file: shard.file.clone(),
            tokens,
        });
        let entry = self.progress.manifest.split_mut(split);
        entry.tokens += tokens;
        entry.documents += documents;
        entry.shards.push(shard);
        Ok(true)
    }
}

impl Progress {
    fn begin_shard(&self, dir: &Path, prefix: &str, split: Split) -> Result<OpenShard, DataError> {
        let number = self.manifest.split(split).shards.len();
        let writer = ShardWriter::create(dir.join(format!("{prefix}_{split}_{number:06}.bin")))?;
        Ok(OpenShard {
            split,
            writer,
            documents: 0,
        })
    }
}
