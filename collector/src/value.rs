use std::borrow::Cow;
use std::sync::Arc;

/// The amount of an increment: any unsigned integer that fits into 64 bits.
///
/// Signed and floating-point values are refused at compile time: a counter never decreases and never rounds.
#[diagnostic::on_unimplemented(
    message = "a counter cannot be raised by `{Self}`",
    label = "not an unsigned integer of at most 64 bits",
    note = "counts are `u8`, `u16`, `u32`, `u64` or `usize`; convert others with `u64::try_from(…)` and decide what a \
            negative or fractional value means"
)]
pub trait CountValue {
    /// The value as the counters keep it.
    fn count(self) -> u64;
}

macro_rules! count_values {
    ($($unsigned:ty),*) => {$(
        impl CountValue for $unsigned {
            #[inline]
            fn count(self) -> u64 {
                u64::from(self)
            }
        }
    )*};
}

count_values!(u8, u16, u32, u64);

impl CountValue for usize {
    #[inline]
    fn count(self) -> u64 {
        // No target has a usize wider than 64 bits.
        self as u64
    }
}

impl<T: CountValue + Copy> CountValue for &T {
    #[inline]
    fn count(self) -> u64 {
        (*self).count()
    }
}

/// The value of a tag: text, integers, `bool`, `char`, options of them (`None` leaves the tag out) and references to any
/// of them.
///
/// Implement it for an enum of your own to give each variant a name without allocating:
/// ```
/// enum Plan { Free, Paid }
/// impl tallybus::TagValue for Plan {
///     type Text<'a> = &'static str;
///     fn text(&self) -> &'static str {
///         match self { Plan::Free => "free", Plan::Paid => "paid" }
///     }
/// }
/// tallybus::count!("signups", plan = Plan::Paid);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the value of a tag",
    label = "not a tag value",
    note = "tag values are text, integers, `bool`, `char`, and references to them; give others as text, or implement \
            `tallybus::TagValue`"
)]
pub trait TagValue {
    /// The text of the value; lives on the stack or borrows from the value.
    type Text<'a>: AsRef<str>
    where
        Self: 'a;

    /// The value as text.
    fn text(&self) -> Self::Text<'_>;
}

impl<T: TagValue + ?Sized> TagValue for &T {
    type Text<'a>
        = T::Text<'a>
    where
        Self: 'a;

    #[inline]
    fn text(&self) -> Self::Text<'_> {
        (**self).text()
    }
}

impl TagValue for str {
    type Text<'a> = &'a str;

    #[inline]
    fn text(&self) -> &str {
        self
    }
}

macro_rules! text_values {
    ($($text:ty),*) => {$(
        impl TagValue for $text {
            type Text<'a> = &'a str where Self: 'a;

            #[inline]
            fn text(&self) -> &str {
                self
            }
        }
    )*};
}

text_values!(String, Box<str>, Arc<str>, Cow<'_, str>);

impl TagValue for bool {
    type Text<'a> = &'static str;

    #[inline]
    fn text(&self) -> &'static str {
        if *self { "true" } else { "false" }
    }
}

impl TagValue for char {
    type Text<'a> = Short<4>;

    fn text(&self) -> Short<4> {
        let mut bytes = [0; 4];
        let length = self.encode_utf8(&mut bytes).len();
        bytes.rotate_left(length);
        Short { bytes, start: 4 - length }
    }
}

/// The text of an optional tag value: empty for `None`, which leaves the tag out.
#[derive(Debug, Clone, Copy)]
pub struct Optional<T>(Option<T>);

impl<T: AsRef<str>> AsRef<str> for Optional<T> {
    #[inline]
    fn as_ref(&self) -> &str {
        self.0.as_ref().map_or("", AsRef::as_ref)
    }
}

impl<T: TagValue> TagValue for Option<T> {
    type Text<'a>
        = Optional<T::Text<'a>>
    where
        Self: 'a;

    #[inline]
    fn text(&self) -> Self::Text<'_> {
        // As a match: older compilers do not see that `map` over the trait's method lives long enough.
        match self {
            Some(value) => Optional(Some(value.text())),
            None => Optional(None),
        }
    }
}

/// A short text on the stack, at the end of its buffer.
#[derive(Debug, Clone, Copy)]
pub struct Short<const N: usize> {
    bytes: [u8; N],
    start: usize,
}

impl<const N: usize> AsRef<str> for Short<N> {
    #[inline]
    fn as_ref(&self) -> &str {
        self.bytes.get(self.start..).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default()
    }
}

macro_rules! integer_values {
    ($digits:literal, $wide:ty: $($integer:ty),*) => {$(
        impl TagValue for $integer {
            type Text<'a> = Short<$digits>;

            #[inline]
            #[allow(
                unused_comparisons,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "one digit at a time, of a magnitude"
            )]
            fn text(&self) -> Short<$digits> {
                // The magnitude by two's complement: right for the smallest value too.
                let mut rest = <$wide>::try_from(*self).unwrap_or_else(|_| (*self as $wide).wrapping_neg());
                let mut bytes = [b'0'; $digits];
                let mut start = $digits;
                loop {
                    start -= 1;
                    bytes[start] = b'0' + (rest % 10) as u8;
                    rest /= 10;
                    if rest == 0 {
                        break;
                    }
                }
                if *self < 0 {
                    start -= 1;
                    bytes[start] = b'-';
                }
                Short { bytes, start }
            }
        }
    )*};
}

integer_values!(20, u64: u8, u16, u32, u64, usize, i8, i16, i32, i64, isize);
integer_values!(40, u128: u128, i128);

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: impl TagValue) -> String {
        value.text().as_ref().to_owned()
    }

    #[test]
    fn integers_read_as_rust_prints_them() {
        for value in [0i64, 1, -1, 9, 10, -10, 200, i64::MAX, i64::MIN, 1 << 40] {
            assert_eq!(text(value), value.to_string());
            assert_eq!(text(i128::from(value)), value.to_string());
        }
        for value in [0u64, 7, 99, 100, u64::MAX] {
            assert_eq!(text(value), value.to_string());
        }
        assert_eq!(text(u128::MAX), u128::MAX.to_string());
        assert_eq!(text(i128::MIN), i128::MIN.to_string());
        assert_eq!(text(i8::MIN), "-128");
        assert_eq!(text(u8::MAX), "255");
    }

    #[test]
    fn other_values_read_as_expected() {
        assert_eq!(text('x'), "x");
        assert_eq!(text('é'), "é");
        assert_eq!(text('🦀'), "🦀");
        assert_eq!(text(true), "true");
        assert_eq!(text("a"), "a");
        let (owned, nested) = (String::from("a"), &&"b");
        assert_eq!(text(&owned) + &text(nested), "ab");
        assert_eq!(text(Cow::Borrowed("b")), "b");
        assert_eq!(text(Some(3)), "3");
        assert_eq!(text(None::<&str>), "");
    }

    #[test]
    fn counts_are_lossless() {
        assert_eq!(u8::MAX.count(), 255);
        assert_eq!((&7u32).count(), 7);
        assert_eq!(usize::MAX.count(), u64::MAX);
    }
}
