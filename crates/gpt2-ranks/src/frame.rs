//! Messages on a connection: the length in bytes as a little-endian u64, then the bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};

/// No message is longer, so that a stranger's bytes do not allocate what they please.
pub(crate) const LONGEST_HELLO: u64 = 4096;

/// What the ranks of a run exchange is bounded by their memory alone.
pub(crate) const ANY_LENGTH: u64 = u64::MAX;

pub(crate) fn write(connection: &mut impl Write, message: &[u8]) -> io::Result<()> {
    connection.write_all(&(message.len() as u64).to_le_bytes())?;
    connection.write_all(message)?;
    connection.flush()
}

pub(crate) fn read(connection: &mut impl Read, longest: u64) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    connection.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > longest {
        return Err(invalid(format!("a message of {length} bytes")));
    }
    let mut message = Vec::new();
    let read = connection.take(length).read_to_end(&mut message)?;
    if (read as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(message)
}

pub(crate) fn write_json(connection: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    write(connection, &serde_json::to_vec(message)?)
}

pub(crate) fn read_json<T: DeserializeOwned>(connection: &mut impl Read, longest: u64) -> io::Result<T> {
    Ok(serde_json::from_slice(&read(connection, longest)?)?)
}

/// Bytes that are no message of ours.
pub(crate) fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_as_they_were_sent() {
        let mut sent = Vec::new();
        write(&mut sent, b"abc").unwrap();
        write(&mut sent, b"").unwrap();
        write_json(&mut sent, &(1, "two")).unwrap();
        let mut received = sent.as_slice();
        assert_eq!(read(&mut received, 3).unwrap(), b"abc");
        assert_eq!(read(&mut received, 3).unwrap(), b"");
        assert_eq!(
            read_json::<(u8, String)>(&mut received, 100).unwrap(),
            (1, "two".into())
        );
        assert_eq!(read(&mut received, 3).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_length_is_no_reason_to_allocate() {
        let mut length = u64::MAX.to_le_bytes().to_vec();
        assert_eq!(
            read(&mut length.as_slice(), LONGEST_HELLO).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        length.push(1);
        assert_eq!(
            read(&mut length.as_slice(), ANY_LENGTH).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
