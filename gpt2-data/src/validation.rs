//! Validation batches: the same windows in the same order each time, so that two losses can be compared.

use std::sync::Arc;

use gpt2_base::Invalid;

use crate::batch::TokenBatch;
use crate::dataset::TokenStream;
use crate::error::DataError;

/// A held-out stream, read from its beginning in windows that do not overlap.
///
/// ⌊(N − 1) / T⌋ windows fit. The fewer than T targets after them are left out: to reach them, a window would have to
/// overlap another or be padded, and either would weigh some tokens differently from the rest.
#[derive(Debug, Clone)]
pub struct ValidationWindows {
    stream: Arc<TokenStream>,
}

impl ValidationWindows {
    /// Windows of `stream`.
    pub const fn new(stream: Arc<TokenStream>) -> Self {
        Self { stream }
    }

    /// Batches of `batch` windows of `seq` tokens, at most `max_batches` of them. The last one has fewer rows if that is
    /// what is left, never padded ones, so a mean over batches must weigh them by [`TokenBatch::batch`].
    ///
    /// # Errors
    /// If the stream is shorter than one window, or `batch` or `seq` is 0. A batch that cannot be read is an error in its
    /// place.
    pub fn batches(
        &self,
        batch: usize,
        seq: usize,
        max_batches: Option<usize>,
    ) -> Result<impl ExactSizeIterator<Item = Result<TokenBatch, DataError>> + use<>, DataError> {
        if batch == 0 {
            return Err(Invalid::new("batch", &0, "at least 1").into());
        }
        self.stream.windows(seq)?;
        let windows = ((self.stream.len() - 1) / seq as u64) as usize;
        let count = windows.div_ceil(batch).min(max_batches.unwrap_or(usize::MAX));
        let stream = Arc::clone(&self.stream);
        Ok((0..count).map(move |index| {
            let rows = index * batch..((index + 1) * batch).min(windows);
            let first_sequence = rows.start as u64;
            let tokens = TokenBatch::read(&stream, seq, rows.map(|row| (row * seq) as u64))?;
            Ok(TokenBatch {
                micro_step: index as u64,
                first_sequence,
                ..tokens
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Split;
    use crate::shard_writer::ShardWriter;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    fn windows(tokens: u16) -> Result<(tempfile::TempDir, ValidationWindows), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let mut writer = ShardWriter::create(dir.path().join("val.bin"))?;
        writer.extend(&(0..tokens).collect::<Vec<_>>())?;
        writer.finish()?;
        let stream = TokenStream::open(dir.path(), Split::Val)?;
        Ok((dir, ValidationWindows::new(Arc::new(stream))))
    }

    #[test]
    fn windows_follow_each_other_and_the_last_batch_is_smaller() -> Outcome {
        let (_dir, windows) = windows(18)?;
        let batches = windows.batches(2, 3, None)?.collect::<Result<Vec<_>, _>>()?;
        let rows: Vec<usize> = batches.iter().map(|batch| batch.batch).collect();
        assert_eq!(rows, [2, 2, 1]);
        let inputs: Vec<i32> = batches.iter().flat_map(|batch| batch.inputs.clone()).collect();
        assert_eq!(inputs, (0..15).collect::<Vec<_>>());
        let targets: Vec<i32> = batches.iter().flat_map(|batch| batch.targets.clone()).collect();
        assert_eq!(targets, (1..16).collect::<Vec<_>>());
        let numbers: Vec<_> = batches
            .iter()
            .map(|batch| (batch.micro_step, batch.first_sequence))
            .collect();
        assert_eq!(numbers, [(0, 0), (1, 2), (2, 4)]);
        Ok(())
    }

    #[test]
    fn the_number_of_batches_is_bounded() -> Outcome {
        let (_dir, windows) = windows(18)?;
        assert_eq!(windows.batches(2, 3, Some(2))?.len(), 2);
        assert_eq!(windows.batches(2, 3, Some(9))?.len(), 3);
        assert_eq!(
            windows
                .batches(100, 17, None)?
                .map(|batch| batch.map(|batch| batch.batch))
                .collect::<Result<Vec<_>, _>>()?,
            [1]
        );
        Ok(())
    }

    #[test]
    fn too_little_text_and_empty_batches_are_refused() -> Outcome {
        let (_dir, windows) = windows(18)?;
        let error = windows
            .batches(2, 18, None)
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(error.contains("18 val tokens") && error.contains("`seq` 18"), "{error}");
        assert!(matches!(
            windows.batches(0, 3, None).err(),
            Some(DataError::Invalid(Invalid { key, .. })) if key == "batch"
        ));
        Ok(())
    }
    #[test]
    fn a_shard_that_is_cut_short_is_an_error_of_its_batch() -> Outcome {
        let (dir, windows) = windows(18)?;
        let batches = windows.batches(2, 3, None)?;
        let shard = dir.path().join("val.bin");
        let bytes = std::fs::read(&shard)?;
        std::fs::write(&shard, &bytes[..bytes.len() - 2 * 8])?;
        let read: Vec<_> = batches.map(|batch| batch.is_ok()).collect();
        assert_eq!(read, [true, false, false]);
        Ok(())
    }
}
