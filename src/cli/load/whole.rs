//! Whole numbers on the command line: what is refused is told with what is allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A parser of decimal numbers in a range.
pub fn whole<T>(allowed: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    move |text| {
        let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|number| is_decimal && allowed.contains(number))
            .ok_or_else(|| format!("expected a whole number from {} to {}", allowed.start(), allowed.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn only_numbers_in_the_range_are_taken() {
        let parse = whole(2..=300_u16);
        assert_eq!((parse("2"), parse("300"), parse("007")), (Ok(2), Ok(300), Ok(7)));
        for text in ["", " ", "x", "-2", "+2", "1", "301", "65536", "99999999999999999999", "2.0", "2k", "٣"]
        {
            let error = parse(text).unwrap_err();
            assert_eq!(error, "expected a whole number from 2 to 300", "{text}");
        }
    }
}
