//! Fields of protobuf messages, one after the other.
//!
//! Reads any bytes without a panic; what it gives borrows from them.
//!
//! # Source
//! <https://protobuf.dev/programming-guides/encoding/>

/// What is wrong with the bytes.
pub(super) type Result<T> = std::result::Result<T, &'static str>;

const TRUNCATED: &str = "unexpected EOF";

/// The value of a field, by wire type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// A message's fields, as (number, value).
#[derive(Debug, Clone)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u64, Value<'a>)> {
        let key = take_varint(&mut self.0)?;
        let value = match key & 7 {
            0 => Value::Varint(take_varint(&mut self.0)?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Value::Bytes(take_delimited(&mut self.0)?),
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err("illegal wire type"),
        };
        match key >> 3 {
            0 => Err("illegal tag 0"),
            number => Ok((number, value)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(*array)
    }
}

pub(super) fn take_varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(TRUNCATED)?;
        *bytes = rest;
        n |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err("integer overflow")
}

/// Bytes behind their length.
pub(super) fn take_delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = usize::try_from(take_varint(bytes)?).map_err(|_| TRUNCATED)?;
    let (body, rest) = bytes.split_at_checked(length).ok_or(TRUNCATED)?;
    *bytes = rest;
    Ok(body)
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err("wrong wire type"),
        }
    }

    pub(super) fn u64(self) -> Result<u64> {
        match self {
            Self::Varint(n) => Ok(n),
            _ => Err("wrong wire type"),
        }
    }

    pub(super) fn i64(self) -> Result<i64> {
        self.u64().map(|n| n as i64)
    }

    /// `sint32` and `sint64`.
    pub(super) fn zigzag(self) -> Result<i64> {
        self.u64().map(unzigzag)
    }

    pub(super) fn f64(self) -> Result<f64> {
        match self {
            Self::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err("wrong wire type"),
        }
    }

    /// Adds one `sint64`, or a packed run of them.
    pub(super) fn push_zigzags(self, out: &mut Vec<i64>) -> Result<()> {
        match self {
            Self::Bytes(mut packed) => {
                while !packed.is_empty() {
                    out.push(unzigzag(take_varint(&mut packed)?));
                }
                Ok(())
            }
            one => one.zigzag().map(|n| out.push(n)),
        }
    }

    /// Adds one `double`, or a packed run of them.
    pub(super) fn push_f64s(self, out: &mut Vec<f64>) -> Result<()> {
        match self {
            Self::Bytes(packed) => {
                let (doubles, rest) = packed.as_chunks::<8>();
                out.extend(doubles.iter().map(|b| f64::from_le_bytes(*b)));
                if rest.is_empty() { Ok(()) } else { Err(TRUNCATED) }
            }
            one => one.f64().map(|v| out.push(v)),
        }
    }
}

fn unzigzag(n: u64) -> i64 {
    (n >> 1) as i64 ^ -((n & 1) as i64)
}
