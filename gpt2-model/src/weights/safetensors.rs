//! Named `f32` tensors in safetensors files. What the names mean is not known here.

use super::dtype::Dtype;
use crate::error::ModelError;
use gpt2_base::fs::NewFile;
use memmap2::Mmap;
use safetensors::tensor::{Dtype as TensorType, Metadata, TensorInfo};
use safetensors::{SafeTensorError, SafeTensors};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{BufWriter, IntoInnerError, Write};
use std::path::{Path, PathBuf};

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

impl NamedTensor {
    pub(super) fn lazy(&self) -> LazyTensor<'_> {
        LazyTensor {
            name: self.name.clone(),
            shape: self.shape.clone(),
            values: Box::new(|| Ok(Cow::Borrowed(self.values.as_slice()))),
        }
    }
}

/// A tensor that is still to be written. Its values are asked for when they are written, so that a model is copied from
/// its device one tensor at a time.
pub struct LazyTensor<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its shape, row-major.
    pub shape: Vec<usize>,
    /// Gives its values, as many as the shape has.
    pub values: Box<dyn FnOnce() -> Result<Cow<'a, [f32]>, ModelError> + 'a>,
}

impl fmt::Debug for LazyTensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyTensor")
            .field("name", &self.name)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

/// Writes the tensors to `path`. The file is whole and on the disk when this returns; until then `path` holds what it
/// held before.
///
/// # Errors
/// [`ModelError::Io`] where the file cannot be written.
pub fn write_tensors(path: &Path, tensors: &[NamedTensor]) -> Result<(), ModelError> {
    write_lazy_tensors(path, tensors.iter().map(NamedTensor::lazy).collect(), Dtype::F32)
}

/// As [`write_tensors`], in `dtype`, with the values of one tensor in memory at a time.
///
/// # Errors
/// [`ModelError::Io`] where the file cannot be written, [`ModelError::BeyondType`] where a value does not fit `dtype`, and
/// what a tensor's values fail with.
///
/// # Panics
/// If a tensor has more or fewer values than its shape.
pub(super) fn write_lazy_tensors(path: &Path, mut tensors: Vec<LazyTensor>, dtype: Dtype) -> Result<(), ModelError> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let header = header(&tensors, dtype).map_err(|source| from_safetensors(path, source))?;
    write_file(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(&header))
            .map_err(|source| io(path, source))?;
        tensors
            .into_iter()
            .try_for_each(|tensor| tensor.write(dtype, path, file))
    })
}

/// Writes a file by `write`. It is whole and on the disk when this returns; until then `path` holds what it held before.
pub(super) fn write_file(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<NewFile>) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let file = NewFile::create(path).map_err(|source| io(path, source))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    write(&mut file)?;
    file.into_inner()
        .map_err(IntoInnerError::into_error)
        .and_then(NewFile::commit)
        .map_err(|source| io(path, source))
}

impl LazyTensor<'_> {
    /// Its values.
    ///
    /// # Panics
    /// If they are more or fewer than its shape has.
    pub(super) fn into_values(self, dtype: Dtype, path: &Path) -> Result<Vec<f32>, ModelError> {
        let values = (self.values)()?.into_owned();
        assert_eq!(
            values.len(),
            self.shape.iter().product::<usize>(),
            "values of {}",
            self.name
        );
        dtype.check(&values, &self.name, path)?;
        Ok(values)
    }

    /// Writes its values into a file that `path` names.
    fn write(self, dtype: Dtype, path: &Path, file: &mut impl Write) -> Result<(), ModelError> {
        let values = self.into_values(dtype, path)?;
        dtype.write(&values, file).map_err(|source| io(path, source))
    }
}

/// The header, filled up with spaces so that the values are aligned.
fn header(tensors: &[LazyTensor], dtype: Dtype) -> Result<Vec<u8>, SafeTensorError> {
    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let start = end;
        end += tensor.shape.iter().product::<usize>() * dtype.size();
        let info = TensorInfo {
            dtype: match dtype {
                Dtype::F32 => TensorType::F32,
                Dtype::F16 => TensorType::F16,
                Dtype::Bf16 => TensorType::BF16,
            },
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        (tensor.name.clone(), info)
    });
    // transformers refuses a file that does not say which framework's layout it has.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let mut header = serde_json::to_vec(&Metadata::new(Some(format), infos.collect())?)?;
    header.resize(header.len().next_multiple_of(size_of::<u64>()), b' ');
    Ok(header)
}

/// Reads every tensor of a safetensors file as `f32`: `f16` and `bf16` are widened, `f64` is rounded.
///
/// # Errors
/// [`ModelError::Io`], [`ModelError::NotTheFile`] for a file of another kind, [`ModelError::SafeTensors`] for a damaged
/// one, [`ModelError::TensorMismatch`] for a type that is no float.
pub fn read_tensors(path: &Path) -> Result<Vec<NamedTensor>, ModelError> {
    let file = TensorFile::open(path)?;
    file.names()
        .into_iter()
        .map(|name| {
            Ok(NamedTensor {
                shape: file.shape(&name).unwrap_or_default().to_vec(),
                values: file.read(&name)?,
                name,
            })
        })
        .collect()
}

/// An open safetensors file. Its header has been checked; its tensors are read one by one.
pub(super) struct TensorFile {
    path: PathBuf,
    map: Mmap,
    /// Where the tensors begin.
    start: usize,
    metadata: Metadata,
}

impl TensorFile {
    pub(super) fn open(path: &Path) -> Result<Self, ModelError> {
        let map = map(path)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|source| from_safetensors(path, source))?;
        Ok(Self {
            path: path.to_owned(),
            start: size_of::<u64>() + header,
            map,
            metadata,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the tensors, in the order in which they lie in the file.
    pub(super) fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// The shape of a tensor, if the file has it.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| info.shape.as_slice())
    }

    /// The values of a tensor.
    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let (dtype, data) = self
            .bytes(name)
            .ok_or_else(|| self.mismatch(name, "missing".to_owned()))?;
        widen(dtype, data).ok_or_else(|| self.mismatch(name, format!("{dtype:?}")))
    }

    /// Checks that a tensor, if the file has it, is of a type that [`read`](Self::read) takes.
    pub(super) fn check_type(&self, name: &str) -> Result<(), ModelError> {
        match self.metadata.info(name).map(|info| info.dtype) {
            // A type is taken or not, however many numbers there are of it.
            Some(dtype) if widen(dtype, &[]).is_none() => Err(self.mismatch(name, format!("{dtype:?}"))),
            _ => Ok(()),
        }
    }

    fn mismatch(&self, name: &str, found: String) -> ModelError {
        ModelError::TensorMismatch {
            path: self.path.clone(),
            name: name.to_owned(),
            found,
            expected: "F64, F32, F16 or BF16".to_owned(),
        }
    }

    /// The type of a tensor and its values as they lie in the file.
    pub(super) fn bytes(&self, name: &str) -> Option<(TensorType, &[u8])> {
        let info = self.metadata.info(name)?;
        let (start, end) = info.data_offsets;
        Some((info.dtype, &self.map[self.start + start..self.start + end]))
    }
}

/// A file in memory, if it is none that is known to hold no weights.
pub(super) fn map(path: &Path) -> Result<Mmap, ModelError> {
    let file = super::open(path)?;
    // SAFETY: the map is only read. A file that another process cuts short meanwhile could fault; weights files are
    // never changed in place here.
    let map = unsafe { Mmap::map(&file) }.map_err(|source| io(path, source))?;
    match other_kind(path, &map) {
        Some(found) => Err(ModelError::NotTheFile {
            path: path.to_owned(),
            found,
        }),
        None => Ok(map),
    }
}

/// What a file is that holds something else than weights, by its first bytes, and what to do about it.
fn other_kind(path: &Path, bytes: &[u8]) -> Option<String> {
    if bytes.starts_with(b"version https://git-lfs.github.com/spec/") {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        return Some(format!(
            "a Git LFS pointer, not the file that it stands for: get that by `git -C {} lfs pull`",
            quoted(dir)
        ));
    }
    // PyTorch's archives are zip files; before 1.6 they were bare pickles.
    let is_pickle = bytes.starts_with(b"PK\x03\x04") || matches!(bytes, [0x80, 2..=5, ..]);
    is_pickle.then(|| {
        "a pickle of PyTorch's, which can run any code when it is opened, not a safetensors file: if you trust it, convert its \
         directory by `python3 -c 'import sys; from transformers import GPT2LMHeadModel as M; \
         M.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])' DIRECTORY NEW`"
            .to_owned()
    })
}

/// The path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    match shlex::try_quote(&text) {
        Ok(quoted) => quoted.into_owned(),
        // Only a NUL cannot be quoted, and no path has one.
        Err(_) => text,
    }
}

fn widen(dtype: TensorType, data: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        TensorType::F64 => {
            let doubles = data.as_chunks::<8>().0.iter();
            doubles.map(|&bytes| f64::from_le_bytes(bytes) as f32).collect()
        }
        TensorType::F32 => Dtype::F32.read(data),
        TensorType::F16 => Dtype::F16.read(data),
        TensorType::BF16 => Dtype::Bf16.read(data),
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
    use safetensors::tensor::TensorView;

    fn tensor(name: &str, shape: &[usize], values: &[f32]) -> NamedTensor {
        NamedTensor {
            name: name.into(),
            shape: shape.to_vec(),
            values: values.to_vec(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let tensors = [
            tensor("b", &[1], &[3.25]),
            tensor("a", &[2, 3], &[0.0, -1.5, 2.0, f32::MIN, 1e-40, 7.0]),
        ];
        write_tensors(&path, &tensors).unwrap();
        let [b, a] = tensors;
        assert_eq!(read_tensors(&path).unwrap(), [a, b], "in the order of their names");
    }

    /// The files of earlier versions were written by the safetensors crate.
    #[test]
    fn the_bytes_are_those_of_the_safetensors_crate() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let tensors = [
            tensor("b.weight", &[3], &[1.0, 2.0, 3.0]),
            tensor("a", &[2, 1], &[4.0, 5.0]),
        ];
        write_tensors(&path, &tensors).unwrap();
        let views = tensors.iter().map(|tensor| {
            let bytes = bytemuck::cast_slice(&tensor.values);
            let view = TensorView::new(TensorType::F32, tensor.shape.clone(), bytes).unwrap();
            (tensor.name.as_str(), view)
        });
        let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let expected = safetensors::serialize(views, Some(format)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn a_cut_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        write_tensors(&path, &[tensor("a", &[64], &[1.0; 64])]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for cut in [0, 7, 20, bytes.len() - 5] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let message = read_tensors(&path).unwrap_err().to_string();
            assert!(
                message.contains("t.safetensors") && message.contains("not a readable safetensors file"),
                "{message}"
            );
        }
    }

    #[test]
    fn files_of_other_kinds_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 548105171\n";
        for (bytes, expected) in [
            (
                pointer.as_bytes(),
                "a Git LFS pointer, not the file that it stands for: get that by `git -C ",
            ),
            (b"PK\x03\x04 an archive", "a pickle of PyTorch's"),
            (b"\x80\x02}q\x00.", "a pickle of PyTorch's"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let message = read_tensors(&path).unwrap_err().to_string();
            assert!(
                message.contains("model.safetensors: ") && message.contains(expected),
                "{message}"
            );
        }
    }

    #[test]
    fn integers_are_no_weights() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let view = TensorView::new(TensorType::I64, vec![1], &[0; 8]).unwrap();
        safetensors::serialize_to_file([("n", view)], None, &path).unwrap();
        let message = read_tensors(&path).unwrap_err().to_string();
        assert!(message.contains("`n` is I64, expected F64, F32"), "{message}");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        write_tensors(&path, &[tensor("a", &[1], &[1.0])]).unwrap();
        let wrong = tensor("a", &[2], &[1.0]);
        let result = std::panic::catch_unwind(|| write_tensors(&path, &[wrong]));
        assert!(result.is_err(), "two values are not one");
        assert_eq!(read_tensors(&path).unwrap(), [tensor("a", &[1], &[1.0])]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
