//! The wire format of Protocol Buffers, as far as needed to find the fields of a message.
//!
//! A message is a sequence of fields, each a varint with the number and the kind of the field, followed by
//! the value. Every length is compared with the bytes that are left, and values are borrowed, never copied.
//! Source: the encoding page of Protocol Buffers' documentation.

/// The value of a field, by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Integers and booleans.
    Varint(u64),
    /// Doubles.
    Eight([u8; 8]),
    /// Strings, messages, and numbers packed together.
    Bytes(&'a [u8]),
    /// Floats.
    Four([u8; 4]),
}

/// The number and the value of each field of a message, up to the first broken one.
#[derive(Debug, Clone)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), String> {
        let key = varint(&mut self.rest)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut self.rest)?),
            1 => Value::Eight(self.array()?),
            2 => {
                let length = varint(&mut self.rest)?;
                let held = self.rest.len();
                let bytes =
                    usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
                let (bytes, rest) =
                    bytes.ok_or_else(|| format!("a field of {length} bytes with {held} left"))?;
                self.rest = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Four(self.array()?),
            other => return Err(format!("a field of kind {other}, where 0, 1, 2 and 5 are known")),
        };
        Ok((key >> 3, value))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let held = self.rest.len();
        let (bytes, rest) =
            self.rest.split_first_chunk().ok_or_else(|| format!("a field of {N} bytes with {held} left"))?;
        self.rest = rest;
        Ok(*bytes)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Takes an unsigned number from the front: seven bits in each byte, the lowest first.
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or("a number that is cut off")?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number of more than ten bytes".to_owned())
}
