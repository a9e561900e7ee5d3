//! An input file as a sequence of segments, whatever its format and compression.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::gzip::GzipReader;
use super::jsonl::JsonlSegments;
use super::options::SplitDocuments;
use super::parquet::ParquetSegments;
use super::segment::Segment;
use super::sources::{Compression, Format, Source};
use super::text::TextSegments;
use crate::error::DataError;

/// The segments of one file, in order. They depend on the file's content alone, which is what lets a resumed run count
/// its way back to where it was.
pub(super) type Segments = Box<dyn Iterator<Item = Result<Segment, DataError>> + Send>;

/// How files are read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub field: String,
    pub split_documents: SplitDocuments,
    /// A directory with room to unpack a compressed Parquet file, which must be read back and forth.
    pub scratch: PathBuf,
}

/// Opens a file. What is read of it is added to `bytes_read`.
pub(super) fn open(source: &Source, reading: &Reading, bytes_read: Arc<AtomicU64>) -> Result<Segments, DataError> {
    let path = source.path.as_path();
    let file = File::open(path).map_err(DataError::io("open", path))?;
    Ok(match source.format {
        Format::Text => {
            let input = decompress(file, source, bytes_read)?;
            Box::new(TextSegments::new(path, input, reading.split_documents))
        }
        Format::Jsonl => {
            let input = BufReader::with_capacity(1 << 18, decompress(file, source, bytes_read)?);
            Box::new(JsonlSegments::new(path, input, reading.field.clone()))
        }
        Format::Parquet if source.compression == Compression::None => Box::new(ParquetSegments::new(
            path,
            file,
            &reading.field,
            source.bytes,
            bytes_read,
        )?),
        Format::Parquet => {
            let unpacked = unpack(file, source, &reading.scratch)?;
            Box::new(ParquetSegments::new(
                path,
                unpacked,
                &reading.field,
                source.bytes,
                bytes_read,
            )?)
        }
    })
}

fn decompress(file: File, source: &Source, bytes_read: Arc<AtomicU64>) -> Result<Box<dyn Read + Send>, DataError> {
    let file = Counted { file, bytes_read };
    Ok(match source.compression {
        Compression::None => Box::new(file),
        Compression::Gzip => Box::new(GzipReader::new(BufReader::with_capacity(1 << 18, file))),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::new(file).map_err(DataError::io("decompress", &source.path))?;
            // Archives of text corpora are often packed with `--long=31`, more than is allowed unasked.
            decoder
                .window_log_max(31)
                .map_err(DataError::io("decompress", &source.path))?;
            Box::new(decoder)
        }
    })
}

/// Unpacks into a file that has no name and so is gone with the process.
fn unpack(file: File, source: &Source, scratch: &Path) -> Result<File, DataError> {
    let mut unpacked = tempfile::tempfile_in(scratch).map_err(DataError::io("create a file in", scratch))?;
    // These bytes are counted when the rows are read.
    let mut input = decompress(file, source, Arc::default())?;
    io::copy(&mut input, &mut unpacked).map_err(DataError::io("decompress", &source.path))?;
    unpacked
        .seek(SeekFrom::Start(0))
        .map_err(DataError::io("read", &source.path))?;
    Ok(unpacked)
}

/// A file that counts what is read of it.
struct Counted {
    file: File,
    bytes_read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.bytes_read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
