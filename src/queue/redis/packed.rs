//! The numbers that a function takes, as one argument.
//!
//! Each argument of its own costs the client library and Redis more than the number in it: a fifth of a
//! send was that. `mb1.lua` names the order of the fields where it reads them.

use std::time::Duration;

use fred::types::Value;

/// Options, one more byte, then 64-bit floats and bytes as they come. Big endian.
pub(super) struct Packed(Vec<u8>);

impl Packed {
    pub(super) fn new(options: u8, second: u8) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(&[options, second]);
        Self(bytes)
    }

    /// A number, exact below 2^53.
    #[expect(clippy::cast_precision_loss, reason = "limits and times are far below 2^53")]
    pub(super) fn number(self, number: u64) -> Self {
        self.bytes(&(number as f64).to_be_bytes())
    }

    /// A time in milliseconds.
    pub(super) fn millis(self, time: Duration) -> Self {
        self.number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    /// A time in milliseconds, -1 for none.
    pub(super) fn millis_or_none(self, time: Option<Duration>) -> Self {
        match time {
            Some(time) => self.millis(time),
            None => self.bytes(&(-1_f64).to_be_bytes()),
        }
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn value(self) -> Value {
        Value::Bytes(self.0.into())
    }

    /// Adds an option to an argument that was made here.
    pub(super) fn add_option(argument: &mut Value, option: u8) {
        let mut bytes = argument.as_bytes().map(<[u8]>::to_vec).unwrap_or_default();
        if let Some(options) = bytes.first_mut() {
            *options |= option;
        }
        *argument = Value::Bytes(bytes.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_in_the_order_in_which_they_were_given() {
        let mut value = Packed::new(1, 2)
            .number(300)
            .millis(Duration::from_secs(1))
            .millis_or_none(None)
            .bytes(b"id")
            .value();
        Packed::add_option(&mut value, 4);
        let bytes = value.as_bytes().unwrap();
        assert_eq!(bytes[..2], [5, 2]);
        let number = |at: usize| f64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!([2, 10, 18].map(|at| number(at).to_string()), ["300", "1000", "-1"]);
        assert_eq!(&bytes[26..], b"id");
    }
}
