//! Matrices turned between Hugging Face's `Conv1D`, which is `[in, out]`, and the `[out, in]` of other formats.

use super::names::Matrix;

/// Rows and columns that are turned at a time, so that both sides stay in the cache.
const TILE: usize = 32;

/// A `[rows, columns]` matrix as `[columns, rows]`.
///
/// # Panics
/// If `values` is of another size.
pub(super) fn transpose(values: &[f32], [rows, columns]: Matrix) -> Vec<f32> {
    assert_eq!(values.len(), rows * columns, "a matrix of {rows} × {columns}");
    let mut turned = vec![0.0; values.len()];
    for top in (0..rows).step_by(TILE) {
        for left in (0..columns).step_by(TILE) {
            for row in top..(top + TILE).min(rows) {
                for column in left..(left + TILE).min(columns) {
                    turned[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        for (rows, columns) in [(1, 5), (3, 2), (33, 70)] {
            let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
            let turned = transpose(&values, [rows, columns]);
            assert_eq!(turned[..rows].last(), Some(&(((rows - 1) * columns) as f32)));
            assert_eq!(turned.last(), values.last());
            assert_eq!(transpose(&turned, [columns, rows]), values);
        }
    }
}
