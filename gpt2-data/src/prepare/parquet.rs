//! Documents from one column of a Parquet file, as FineWeb is published: a row is a document.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::parquet::basic::Compression;
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};

use super::segment::Segment;
use crate::error::DataError;

/// What columns may be compressed by.
const CODECS: &str = "Snappy, gzip, zstd, Brotli, LZ4 or none";

/// Rows decoded at a time. A page of some hundred documents is in memory anyway.
const ROWS_AT_A_TIME: usize = 256;

/// The documents of a Parquet file. Rows without text, null or empty, are passed over.
pub(super) struct ParquetSegments {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    column_name: String,
    column: usize,
    /// Definition level of a value that is there: 0 for a required column, 1 for one that may be null.
    defined: i16,
    next_row_group: usize,
    rows: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Values decoded and not yet handed on, with the row of the first.
    values: std::vec::IntoIter<ByteArray>,
    /// Values taken so far in the whole file, for errors.
    taken: u64,
    /// Size of the file on disk and what of it is not yet counted. A row group counts in whole, with its other columns.
    uncounted: u64,
    bytes_per_row_group: u64,
    bytes_read: Arc<AtomicU64>,
    failed: bool,
}

impl ParquetSegments {
    pub(super) fn new(
        path: &Path,
        file: File,
        column_name: &str,
        bytes: u64,
        bytes_read: Arc<AtomicU64>,
    ) -> Result<Self, DataError> {
        let reader = SerializedFileReader::new(file).map_err(parquet_error(path))?;
        let metadata = reader.metadata();
        let columns = metadata.file_metadata().schema_descr().columns();
        let Some(column) = columns.iter().position(|column| column.path().string() == column_name) else {
            return Err(DataError::MissingColumn {
                path: path.to_path_buf(),
                column: column_name.to_owned(),
                columns: columns.iter().map(|column| column.path().string()).collect(),
            });
        };
        let descriptor = &columns[column];
        if descriptor.max_rep_level() > 0 {
            return Err(column_type(path, column_name, "LIST"));
        }
        let mut codecs = metadata
            .row_groups()
            .iter()
            .map(|group| group.column(column).compression());
        if let Some(codec) = codecs.find(|&codec| codec == Compression::LZO) {
            return Err(DataError::ParquetCodec {
                path: path.to_path_buf(),
                column: column_name.to_owned(),
                codec: codec.to_string(),
                expected: CODECS,
            });
        }
        let defined = descriptor.max_def_level();
        let row_groups = metadata.num_row_groups().max(1) as u64;
        Ok(Self {
            path: path.to_path_buf(),
            reader,
            column_name: column_name.to_owned(),
            column,
            defined,
            next_row_group: 0,
            rows: None,
            values: Vec::new().into_iter(),
            taken: 0,
            uncounted: bytes,
            bytes_per_row_group: bytes / row_groups,
            bytes_read,
            failed: false,
        })
    }

    fn next_text(&mut self) -> Result<Option<String>, DataError> {
        loop {
            if let Some(value) = self.values.next() {
                self.taken += 1;
                let text = std::str::from_utf8(value.data()).map_err(|_| DataError::BadUtf8InColumn {
                    path: self.path.clone(),
                    column: self.column_name.clone(),
                    value: self.taken,
                })?;
                if !text.is_empty() {
                    return Ok(Some(text.to_owned()));
                }
            } else if !self.decode_rows()? && !self.open_row_group()? {
                return Ok(None);
            }
        }
    }

    /// Decodes some rows of the open row group; `false` if there are none left.
    fn decode_rows(&mut self) -> Result<bool, DataError> {
        let Some(rows) = &mut self.rows else { return Ok(false) };
        let mut levels = Vec::new();
        let mut values = Vec::new();
        let levels = (self.defined > 0).then_some(&mut levels);
        let (records, _, _) = rows
            .read_records(ROWS_AT_A_TIME, levels, None, &mut values)
            .map_err(parquet_error(&self.path))?;
        if records == 0 {
            self.rows = None;
            self.count(self.bytes_per_row_group);
        }
        // Nulls take a level but no value.
        self.values = values.into_iter();
        Ok(records > 0)
    }

    /// Opens the next row group; `false` if that was the last.
    fn open_row_group(&mut self) -> Result<bool, DataError> {
        if self.next_row_group == self.reader.num_row_groups() {
            self.count(self.uncounted);
            return Ok(false);
        }
        let column = self
            .reader
            .get_row_group(self.next_row_group)
            .and_then(|group| group.get_column_reader(self.column))
            .map_err(parquet_error(&self.path))?;
        self.next_row_group += 1;
        let ColumnReader::ByteArrayColumnReader(rows) = column else {
            let columns = self.reader.metadata().file_metadata().schema_descr().columns();
            let found = columns[self.column].physical_type().to_string();
            return Err(column_type(&self.path, &self.column_name, &found));
        };
        self.rows = Some(rows);
        Ok(true)
    }

    fn count(&mut self, bytes: u64) {
        self.uncounted -= bytes;
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Iterator for ParquetSegments {
    type Item = Result<Segment, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let text = self.next_text().transpose()?;
        self.failed = text.is_err();
        Some(text.map(|text| Segment {
            text,
            starts_document: true,
        }))
    }
}

fn parquet_error(path: &Path) -> impl Fn(ParquetError) -> DataError {
    let path = path.to_path_buf();
    move |source| DataError::Parquet {
        path: path.clone(),
        source,
    }
}

fn column_type(path: &Path, column: &str, found: &str) -> DataError {
    DataError::ColumnType {
        path: path.to_path_buf(),
        column: column.to_owned(),
        found: found.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use ::parquet::basic::{BrotliLevel, GzipLevel, ZstdLevel};
    use ::parquet::data_type::Int64Type;
    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;

    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    /// Row groups of a nullable text column and a number, as FineWeb has them side by side.
    fn write(path: &Path, row_groups: &[&[Option<&str>]], compression: Compression) -> Outcome {
        let schema = parse_message_type("message rows { optional binary text (UTF8); required int64 id; }")?;
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer = SerializedFileWriter::new(File::create(path)?, Arc::new(schema), Arc::new(properties))?;
        for rows in row_groups {
            let mut group = writer.next_row_group()?;
            let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
            let texts: Vec<ByteArray> = rows.iter().flatten().map(|&text| ByteArray::from(text)).collect();
            let mut column = group.next_column()?.ok_or("no text column")?;
            column
                .typed::<ByteArrayType>()
                .write_batch(&texts, Some(&levels), None)?;
            column.close()?;
            let ids: Vec<i64> = (0..).take(rows.len()).collect();
            let mut column = group.next_column()?.ok_or("no id column")?;
            column.typed::<Int64Type>().write_batch(&ids, None, None)?;
            column.close()?;
            group.close()?;
        }
        writer.close()?;
        Ok(())
    }

    /// A required column of one value.
    fn write_bytes(path: &Path, bytes: &[u8]) -> Outcome {
        let schema = Arc::new(parse_message_type("message rows { required binary text (UTF8); }")?);
        let mut writer = SerializedFileWriter::new(File::create(path)?, schema, Arc::default())?;
        let mut group = writer.next_row_group()?;
        let mut column = group.next_column()?.ok_or("no column")?;
        column
            .typed::<ByteArrayType>()
            .write_batch(&[ByteArray::from(bytes.to_vec())], None, None)?;
        column.close()?;
        group.close()?;
        writer.close()?;
        Ok(())
    }

    fn texts(path: &Path, column: &str) -> Result<(Vec<String>, u64), DataError> {
        let bytes_read = Arc::new(AtomicU64::new(0));
        let file = File::open(path).map_err(DataError::io("open", path))?;
        let segments = ParquetSegments::new(path, file, column, 1000, Arc::clone(&bytes_read))?;
        let texts = segments
            .map(|segment| segment.map(|segment| segment.text))
            .collect::<Result<_, _>>()?;
        Ok((texts, bytes_read.load(Ordering::Relaxed)))
    }

    #[test]
    fn rows_are_documents_and_nulls_are_not() -> Outcome {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a.parquet");
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::ZSTD(ZstdLevel::default()),
            Compression::GZIP(GzipLevel::default()),
            Compression::BROTLI(BrotliLevel::default()),
            Compression::LZ4,
            Compression::LZ4_RAW,
        ] {
            write(
                &path,
                &[&[Some("one"), None, Some("中")], &[Some(""), Some("two")]],
                compression,
            )?;
            assert_eq!(
                texts(&path, "text")?,
                (vec!["one".into(), "中".into(), "two".into()], 1000)
            );
        }
        Ok(())
    }

    #[test]
    fn many_rows_keep_their_order() -> Outcome {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a.parquet");
        let rows: Vec<String> = (0..3 * ROWS_AT_A_TIME).map(|row| format!("row {row}")).collect();
        let group: Vec<Option<&str>> = rows.iter().map(|row| Some(row.as_str())).collect();
        write(&path, &[&group], Compression::SNAPPY)?;
        assert_eq!(texts(&path, "text")?.0, rows);
        Ok(())
    }

    #[test]
    fn wrong_columns_and_files_are_named() -> Outcome {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a.parquet");
        write(&path, &[&[Some("one")]], Compression::SNAPPY)?;
        let error = texts(&path, "body").unwrap_err();
        assert!(error.to_string().contains("it has: text, id"), "{error}");
        let error = texts(&path, "id").unwrap_err();
        assert!(
            matches!(&error, DataError::ColumnType { found, .. } if found == "INT64"),
            "{error}"
        );
        // The schema may say UTF8 and the bytes be something else.
        write_bytes(&path, &[0xFF])?;
        let error = texts(&path, "text").unwrap_err();
        assert!(matches!(error, DataError::BadUtf8InColumn { value: 1, .. }), "{error}");
        std::fs::write(&path, "not parquet at all")?;
        assert!(matches!(texts(&path, "text"), Err(DataError::Parquet { .. })));
        Ok(())
    }
    #[test]
    fn a_codec_that_is_not_read_is_named() -> Outcome {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("a.parquet");
        write_bytes(&path, b"one")?;
        // In the footer (Thrift's compact protocol) the column's path, and after it the codec: 0 is none, 3 is LZO.
        let column = b"\x19\x18\x04text\x15";
        let mut bytes = std::fs::read(&path)?;
        let at = bytes
            .windows(column.len())
            .position(|window| window == column)
            .ok_or("no column")?
            + column.len();
        assert_eq!(bytes[at], 0);
        bytes[at] = 2 * 3;
        std::fs::write(&path, bytes)?;
        let error = texts(&path, "text").unwrap_err();
        assert!(
            error.to_string().ends_with(
                "column \"text\" is compressed by LZO, expected Snappy, gzip, zstd, Brotli, LZ4 or none: write the file again"
            ),
            "{error}"
        );
        Ok(())
    }
}
