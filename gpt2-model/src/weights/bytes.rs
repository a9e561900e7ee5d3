//! Numbers and strings read from a file in memory, one after the other, never past its end.

/// What is left to read.
pub(super) struct Bytes<'a> {
    all: &'a [u8],
    at: usize,
}

/// A number ends past the end of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Where it begins.
    pub(super) at: usize,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(all: &'a [u8]) -> Self {
        Self { all, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next `count`.
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Cut> {
        let cut = Cut { at: self.at };
        let end = self.at.checked_add(count).ok_or(Cut { at: self.at })?;
        let taken = self.all.get(self.at..end).ok_or(cut)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Cut> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| Cut { at })
    }

    pub(super) fn u32(&mut self) -> Result<u32, Cut> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Cut> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Cut> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn f32(&mut self) -> Result<f32, Cut> {
        self.array().map(f32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_past_the_end() {
        let mut bytes = Bytes::new(&[1, 0, 0, 0, 2]);
        assert_eq!(bytes.u32(), Ok(1));
        assert_eq!(bytes.u32(), Err(Cut { at: 4 }));
        assert_eq!(bytes.take(usize::MAX), Err(Cut { at: 4 }));
        assert_eq!(bytes.take(1), Ok(&[2][..]));
        assert_eq!(bytes.position(), 5);
    }
}
