//! Named `f32` tensors in safetensors files. What the names mean is not known here.

use crate::error::ModelError;
use memmap2::Mmap;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

/// A tensor on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Its name in the file.
    pub name: String,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
}

/// Writes the tensors to `path` and waits until they are on the disk. The file is not replaced atomically: that is for
/// the caller, who knows what belongs together.
///
/// # Errors
/// [`ModelError::Io`] where the file cannot be written.
pub fn write_tensors(path: &Path, tensors: &[NamedTensor]) -> Result<(), ModelError> {
    let views = tensors
        .iter()
        .map(|tensor| {
            let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytemuck::cast_slice(&tensor.values))?;
            Ok((tensor.name.as_str(), view))
        })
        .collect::<Result<Vec<_>, SafeTensorError>>()
        .map_err(|source| from_safetensors(path, source))?;
    // transformers refuses a file that does not say which framework's layout it has.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|source| from_safetensors(path, source))?;
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|source| io(path, source))
}

/// Reads every tensor of a safetensors file; `f16` and `bf16` are widened to `f32`.
///
/// # Errors
/// [`ModelError::Io`], [`ModelError::SafeTensors`] for a damaged file, [`ModelError::TensorMismatch`] for a type that is
/// no float.
pub fn read_tensors(path: &Path) -> Result<Vec<NamedTensor>, ModelError> {
    let file = File::open(path).map_err(|source| io(path, source))?;
    // SAFETY: the map is read and dropped within this function. A file that another process cuts short meanwhile could
    // fault; weights files are never changed in place here.
    let map = unsafe { Mmap::map(&file) }.map_err(|source| io(path, source))?;
    let file = SafeTensors::deserialize(&map).map_err(|source| from_safetensors(path, source))?;
    file.iter()
        .map(|(name, view)| {
            let values = widen(&view).ok_or_else(|| ModelError::TensorMismatch {
                path: path.to_owned(),
                name: name.to_owned(),
                found: format!("{:?}", view.dtype()),
                expected: "F32, F16 or BF16".to_owned(),
            })?;
            Ok(NamedTensor {
                name: name.to_owned(),
                shape: view.shape().to_vec(),
                values,
            })
        })
        .collect()
}

fn widen(view: &TensorView) -> Option<Vec<f32>> {
    let data = view.data();
    Some(match view.dtype() {
        Dtype::F32 => data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bytes| f32::from_le_bytes(bytes))
            .collect(),
        Dtype::F16 => data
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&bytes| half::f16::from_le_bytes(bytes).to_f32())
            .collect(),
        Dtype::BF16 => data
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&bytes| half::bf16::from_le_bytes(bytes).to_f32())
            .collect(),
        _ => return None,
    })
}

pub(super) fn io(path: &Path, source: std::io::Error) -> ModelError {
    ModelError::Io {
        path: path.to_owned(),
        source,
    }
}

fn from_safetensors(path: &Path, source: SafeTensorError) -> ModelError {
    match source {
        SafeTensorError::IoError(source) => io(path, source),
        source => ModelError::SafeTensors {
            path: path.to_owned(),
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let tensors = vec![
            NamedTensor {
                name: "a".into(),
                shape: vec![2, 3],
                values: vec![0.0, -1.5, 2.0, f32::MIN, 1e-40, 7.0],
            },
            NamedTensor {
                name: "b".into(),
                shape: vec![1],
                values: vec![3.25],
            },
        ];
        write_tensors(&path, &tensors).unwrap();
        let mut back = read_tensors(&path).unwrap();
        back.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(back, tensors);
    }

    #[test]
    fn a_cut_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        write_tensors(
            &path,
            &[NamedTensor {
                name: "a".into(),
                shape: vec![64],
                values: vec![1.0; 64],
            }],
        )
        .unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        let message = read_tensors(&path).unwrap_err().to_string();
        assert!(
            message.contains("t.safetensors") && message.contains("safetensors file"),
            "{message}"
        );
    }

    #[test]
    fn integers_are_no_weights() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let view = TensorView::new(Dtype::I64, vec![1], &[0; 8]).unwrap();
        safetensors::serialize_to_file([("n", view)], None, &path).unwrap();
        let message = read_tensors(&path).unwrap_err().to_string();
        assert!(message.contains("`n` is I64, expected F32"), "{message}");
    }
}
