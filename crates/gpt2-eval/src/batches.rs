//! Sequences whose last tokens are scored, in batches of similar lengths.

use gpt2_model::Sequences;

/// Rows are padded to a multiple of this, so that a device sees few shapes.
const SEQ_MULTIPLE: usize = 32;

/// A sequence of which the last tokens are scored, each by those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// At most `block_size` inputs and the token after them.
    tokens: Vec<u16>,
    /// How many of the last tokens are scored.
    scored: usize,
    /// Whether tokens at the beginning were left out.
    pub(crate) truncated: bool,
}

impl Row {
    /// `scored` after `context`; of what is longer than a block the beginning is left out.
    ///
    /// # Panics
    /// If one of the two is empty.
    pub(crate) fn new(context: &[u16], scored: &[u16], block_size: usize) -> Self {
        assert!(
            !context.is_empty() && !scored.is_empty(),
            "readers refuse what is empty"
        );
        let length = context.len() + scored.len();
        // The last token is a target only.
        let left_out = length.saturating_sub(block_size + 1);
        let tokens: Vec<u16> = context.iter().chain(scored).skip(left_out).copied().collect();
        Self {
            scored: scored.len().min(tokens.len() - 1),
            tokens,
            truncated: left_out > 0,
        }
    }

    /// Inputs, T before padding.
    fn seq(&self) -> usize {
        self.tokens.len() - 1
    }
}

/// Rows that are computed together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Their places among all rows.
    pub(crate) rows: Vec<usize>,
    /// T.
    seq: usize,
}

/// All rows in batches of at most `batch`, the longest first: what does not fit a device's memory shows at once.
pub(crate) fn batches(rows: &[Row], batch: usize, block_size: usize) -> Vec<Batch> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(rows[row].seq()));
    order
        .chunks(batch)
        .map(|places| Batch {
            rows: places.to_vec(),
            seq: rows[places[0]].seq().next_multiple_of(SEQ_MULTIPLE).min(block_size),
        })
        .collect()
}

impl Batch {
    /// Where in the flattened `[B, T]` the scored targets of each row are.
    pub(crate) fn scored(&self, rows: &[Row]) -> Vec<std::ops::Range<usize>> {
        let place = |(index, &row): (usize, &usize)| {
            let end = index * self.seq + rows[row].seq();
            end - rows[row].scored..end
        };
        self.rows.iter().enumerate().map(place).collect()
    }

    /// Its inputs and targets. The padding is behind the tokens, which causal attention hides from them.
    pub(crate) fn sequences(&self, rows: &[Row]) -> Sequences {
        let [inputs, targets] = [0, 1].map(|from| {
            let mut tokens = vec![0_i32; self.rows.len() * self.seq];
            for (line, &row) in tokens.chunks_mut(self.seq).zip(&self.rows) {
                let row = &rows[row];
                for (place, &token) in line.iter_mut().zip(&row.tokens[from..from + row.seq()]) {
                    *place = i32::from(token);
                }
            }
            tokens
        });
        Sequences {
            inputs,
            targets,
            seq: self.seq,
        }
    }
}

/// The targets of each row that are scored, in order.
pub(crate) fn scored_targets(row: &Row) -> &[u16] {
    &row.tokens[row.tokens.len() - row.scored..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_its_last_block() {
        let row = Row::new(&[1, 2, 3], &[4, 5], 8);
        assert_eq!(
            (row.tokens.as_slice(), row.scored, row.truncated),
            (&[1, 2, 3, 4, 5][..], 2, false)
        );
        assert_eq!(Row::new(&[1, 2, 3], &[4, 5], 4).tokens, [1, 2, 3, 4, 5], "four inputs");
        let row = Row::new(&[1, 2, 3], &[4, 5], 3);
        assert_eq!(
            (row.tokens.as_slice(), row.scored, row.truncated),
            (&[2, 3, 4, 5][..], 2, true)
        );
        // What is left has one token that nothing is before.
        let row = Row::new(&[1], &[2, 3, 4, 5], 2);
        assert_eq!(
            (row.tokens.as_slice(), row.scored, row.truncated),
            (&[3, 4, 5][..], 2, true)
        );
        assert_eq!(scored_targets(&row), [4, 5]);
    }

    #[test]
    fn batches_are_of_similar_lengths() {
        let rows: Vec<Row> = [3, 40, 5, 70]
            .iter()
            .map(|&length| Row::new(&vec![1; length], &[2], 72))
            .collect();
        let batches = batches(&rows, 2, 72);
        let shapes: Vec<_> = batches.iter().map(|batch| (batch.rows.clone(), batch.seq)).collect();
        assert_eq!(shapes, [(vec![3, 1], 72), (vec![2, 0], 32)]);
        assert_eq!(batches[0].scored(&rows), [69..70, 72 + 39..72 + 40]);
        assert_eq!(batches[1].scored(&rows), [4..5, 32 + 2..32 + 3]);
    }
}
