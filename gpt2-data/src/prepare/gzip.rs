//! Gzip files of several members, padded with zeros or not.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The members of a gzip file as one text. Zeros after a member are padding, as `gzip` has it: archives on tape and
/// some downloads are filled up to whole blocks.
pub(super) struct GzipReader<R> {
    /// `None` after the last member or an error.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            member: Some(GzDecoder::new(input)),
        }
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let count = member.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            let Some(member) = self.member.take() else { break };
            let mut input = member.into_inner();
            if skip_zeros(&mut input)? {
                self.member = Some(GzDecoder::new(input));
            }
        }
        Ok(0)
    }
}

/// Moves to the next byte that is not zero; `false` if there is none.
fn skip_zeros(input: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            return Ok(false);
        }
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        let found = zeros < bytes.len();
        input.consume(zeros);
        if found {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::{BufReader, Write};

    fn member(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<String> {
        let mut text = String::new();
        GzipReader::new(BufReader::with_capacity(7, bytes)).read_to_string(&mut text)?;
        Ok(text)
    }

    #[test]
    fn members_are_joined_and_zeros_between_and_after_them_are_padding() {
        let (one, two) = (member("one"), member("two"));
        assert_eq!(read(&one).unwrap(), "one");
        assert_eq!(read(&[&one[..], &two].concat()).unwrap(), "onetwo");
        assert_eq!(read(&[&one[..], &[0; 512]].concat()).unwrap(), "one");
        assert_eq!(read(&[&one[..], &[0; 100], &two, &[0; 3]].concat()).unwrap(), "onetwo");
        assert_eq!(read(&[&member("")[..], &two].concat()).unwrap(), "two");
    }

    #[test]
    fn what_is_damaged_is_an_error() {
        let one = member("one");
        for bytes in [&one[..one.len() - 3], &[&one[..], b"rest"].concat(), &[0; 64], b""] {
            read(bytes).unwrap_err();
        }
    }
}
