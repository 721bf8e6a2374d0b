//! The part of Protobuf's wire format that the native message needs.

/// The wire types in use; 3 and 4 (groups) are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

/// An error of the reader, and its position.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) position: usize,
    pub(super) reason: &'static str,
}

const TRUNCATED: &str = "the message ends too early";
const OVERLONG: &str = "a varint has more than 64 bits";
const TOO_LARGE: &str = "the number has more than 32 bits";

/// Reads a message from its beginning.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// The byte that comes next.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn varint(&mut self) -> Result<u64, Fault> {
        let (value, length) = varint(&self.bytes[self.at..]).map_err(|reason| Fault { position: self.at, reason })?;
        self.at += length;
        Ok(value)
    }

    /// Reads a field's number and wire type.
    pub(super) fn key(&mut self) -> Result<(u32, Wire), Fault> {
        let position = self.at;
        let key = self.varint()?;
        let wire = match key & 7 {
            0 => Wire::Varint,
            1 => Wire::Fixed64,
            2 => Wire::Bytes,
            5 => Wire::Fixed32,
            _ => return Err(Fault { position, reason: "protobuf groups are not supported" }),
        };
        match u32::try_from(key >> 3) {
            Ok(number @ 1..) => Ok((number, wire)),
            _ => Err(Fault { position, reason: "unknown field number" }),
        }
    }

    /// Reads a length and that many bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let position = self.at;
        let declared = self.varint()?;
        let rest = self.bytes.len() - self.at;
        let length = usize::try_from(declared).ok().filter(|&length| length <= rest);
        self.take(length.ok_or(Fault { position, reason: "the length goes beyond the end of the message" })?)
    }

    /// Skips a field's content.
    pub(super) fn skip(&mut self, wire: Wire) -> Result<(), Fault> {
        match wire {
            Wire::Varint => self.varint().map(drop),
            Wire::Fixed64 => self.take(8).map(drop),
            Wire::Bytes => self.bytes().map(drop),
            Wire::Fixed32 => self.take(4).map(drop),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let fault = Fault { position: self.at, reason: TRUNCATED };
        let taken = self.bytes[self.at..].get(..length).ok_or(fault)?;
        self.at += length;
        Ok(taken)
    }
}

/// Reads a varint from the beginning of `bytes`: its value and its length.
#[inline]
fn varint(bytes: &[u8]) -> Result<(u64, usize), &'static str> {
    if let Some((value, length)) = bytes.first_chunk().and_then(|chunk| short_varint(*chunk)) {
        return Ok((value, length));
    }
    long_varint(bytes)
}

/// Reads one of up to 8 bytes, all at once.
#[inline]
fn short_varint(bytes: [u8; 8]) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(bytes);
    // The highest bit of each byte below 0x80: the first ends the varint.
    let ends = !word & 0x8080_8080_8080_8080;
    if ends == 0 {
        return None;
    }
    let sevens = word & (ends ^ (ends - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
    // Neighbours become numbers of 14 bits, those of 28, and those of 56.
    let pairs = (sevens & 0x007f_007f_007f_007f) | ((sevens & 0x7f00_7f00_7f00_7f00) >> 1);
    let fours = (pairs & 0x0000_3fff_0000_3fff) | ((pairs & 0x3fff_0000_3fff_0000) >> 2);
    let value = (fours & 0x0fff_ffff) | ((fours & 0x0fff_ffff_0000_0000) >> 4);
    Some((value, ends.trailing_zeros() as usize / 8 + 1))
}

fn long_varint(bytes: &[u8]) -> Result<(u64, usize), &'static str> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        if index == 9 && byte > 1 {
            return Err(OVERLONG);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok((value, index + 1));
        }
    }
    Err(TRUNCATED)
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub(super) fn put_number(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, value);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

/// A repeated number, read whole.
#[derive(Debug, Default)]
pub(super) struct Column<T> {
    pub(super) values: Vec<T>,
    /// Where the field's content begins, the first time it occurs.
    start: Option<usize>,
}

impl<T: Copy + From<u8> + TryFrom<u64>> Column<T> {
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.start = None;
    }

    /// Where the field's content begins; 0 when it is absent.
    pub(super) fn position(&self) -> usize {
        self.start.unwrap_or(0)
    }

    /// Appends the field's content: packed, as every writer does, or a single number, which every reader must accept too.
    pub(super) fn read(&mut self, wire: Wire, reader: &mut Reader<'_>) -> Result<(), Fault> {
        let position = reader.position();
        match wire {
            Wire::Varint => {
                self.start.get_or_insert(position);
                let value = reader.varint()?;
                self.push(value).map_err(|reason| Fault { position, reason })
            }
            Wire::Bytes => {
                let packed = reader.bytes()?;
                let start = reader.position() - packed.len();
                self.start.get_or_insert(start);
                self.read_packed(packed, start)
            }
            _ => Err(Fault { position, reason: WRONG_TYPE }),
        }
    }

    fn read_packed(&mut self, packed: &[u8], start: usize) -> Result<(), Fault> {
        // Each number ends with its only byte below 0x80, so this is their exact count.
        let count = packed.iter().filter(|&&byte| byte < 0x80).count();
        if count == packed.len() {
            self.values.extend(packed.iter().map(|&byte| T::from(byte)));
            return Ok(());
        }
        let known = self.values.len();
        self.values.resize(known + count, T::from(0));
        let mut rest = packed;
        for slot in &mut self.values[known..] {
            let fault = |reason| Fault { position: start + packed.len() - rest.len(), reason };
            let (value, length) = match *rest {
                [only @ ..0x80, ..] => (u64::from(only), 1),
                [low, high @ ..0x80, ..] => (u64::from(low & 0x7f) | u64::from(high) << 7, 2),
                _ => varint(rest).map_err(fault)?,
            };
            *slot = T::try_from(value).map_err(|_| fault(TOO_LARGE))?;
            rest = &rest[length..];
        }
        // What is left has no end.
        if !rest.is_empty() {
            let position = start + packed.len() - rest.len();
            return Err(Fault { position, reason: long_varint(rest).err().unwrap_or(TRUNCATED) });
        }
        Ok(())
    }

    fn push(&mut self, value: u64) -> Result<(), &'static str> {
        self.values.push(T::try_from(value).map_err(|_| TOO_LARGE)?);
        Ok(())
    }
}

pub(super) const WRONG_TYPE: &str = "the field has another wire type than in batch.proto";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_and_zigzag_go_both_ways() {
        for value in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(varint(&out), Ok((value, out.len())));
            assert_eq!(varint(&out[..out.len() - 1]), Err(TRUNCATED));
            assert_eq!(zigzag(unzigzag(value)), value);
        }
        assert_eq!([0, -1, 1, i64::MIN, i64::MAX].map(zigzag), [0, 1, 2, u64::MAX, u64::MAX - 1]);
        for bits in 0..64 {
            for value in [1 << bits, u64::MAX >> bits, 0x5a5a_a5a5_1234_8888 >> bits] {
                for padding in 0..10 {
                    let mut out = Vec::new();
                    put_varint(&mut out, value);
                    let length = out.len();
                    out.extend(std::iter::repeat_n(0xff, padding));
                    assert_eq!(varint(&out), Ok((value, length)), "{value:#x}");
                    assert_eq!(varint(&out), long_varint(&out));
                }
            }
        }
        // Trailing zeros, which no encoder writes but every decoder accepts.
        assert_eq!(varint(&[0x81, 0x80, 0x80, 0, 0x80, 1, 1, 1]), Ok((1, 4)));
        assert_eq!(varint(&[0xff; 11]), Err(OVERLONG));
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Err(OVERLONG));
    }
}
