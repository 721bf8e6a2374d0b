//! Protobuf's wire format, as much of it as the native message needs.

/// The wire types in use; 3 and 4 (groups) are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Varint,
    Fixed64,
    Bytes,
    Fixed32,
}

/// What stopped the reader, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) position: usize,
    pub(super) reason: &'static str,
}

const TRUNCATED: &str = "the message ends too early";
const OVERLONG: &str = "a varint has more than 64 bits";

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
            _ => return Err(Fault { position, reason: "groups are not part of any version" }),
        };
        match u32::try_from(key >> 3) {
            Ok(number @ 1..) => Ok((number, wire)),
            _ => Err(Fault { position, reason: "no field has this number" }),
        }
    }

    /// Reads a length and that many bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Fault> {
        let position = self.at;
        let declared = self.varint()?;
        let rest = self.bytes.len() - self.at;
        let length = usize::try_from(declared).ok().filter(|&length| length <= rest);
        self.take(length.ok_or(Fault { position, reason: "the length is beyond the message's end" })?)
    }

    /// Steps over a field's content.
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
fn varint(bytes: &[u8]) -> Result<(u64, usize), &'static str> {
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

impl<T: TryFrom<u64>> Column<T> {
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.start = None;
    }

    /// Where the field's content begins; 0 when it is absent.
    pub(super) fn position(&self) -> usize {
        self.start.unwrap_or(0)
    }

    /// Appends the field's content: packed, as everybody writes it, or a single number, as everybody must read too.
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
        self.values.reserve(packed.iter().filter(|&&byte| byte < 0x80).count());
        let mut at = 0;
        while let Some(&byte) = packed.get(at) {
            let fault = |reason| Fault { position: start + at, reason };
            let (value, length) =
                if byte < 0x80 { (u64::from(byte), 1) } else { varint(&packed[at..]).map_err(fault)? };
            self.push(value).map_err(fault)?;
            at += length;
        }
        Ok(())
    }

    fn push(&mut self, value: u64) -> Result<(), &'static str> {
        self.values.push(T::try_from(value).map_err(|_| "the number has more than 32 bits")?);
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
        assert_eq!(varint(&[0xff; 11]), Err(OVERLONG));
        assert_eq!(varint(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Err(OVERLONG));
    }
}
