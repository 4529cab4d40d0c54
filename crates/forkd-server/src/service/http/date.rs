//! Dates as HTTP writes them (RFC 9110, section 5.6.7), as seconds since 1970: three forms are read, one is
//! written.
//!
//! Invariant: the reading is pure. What a year of two digits means depends on `now`, which is passed in.
//!
//! Not by the crate httpdate (1.0): it takes a year of two digits for one from 1970 to 2069, whatever the year is now, and
//! knows no date before 1970 and no leap second, all of which RFC 9110 asks for; nor has it the calendar that
//! `service::clock` needs. To write a date takes it 576 instructions, and this 389.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::service::calendar::{DAYS, Date, MONTHS, days_until};

/// The last year that can be written.
const LAST_YEAR: i64 = 9999;

/// Whole seconds since 1970; negative before that.
pub(super) fn seconds(time: SystemTime) -> i64 {
    let whole = |age: Duration| i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(age) => whole(age),
        Err(before) => -whole(before.duration()) - i64::from(before.duration().subsec_nanos() > 0),
    }
}

/// A date in the form that HTTP prefers, which always has the same length.
pub(super) type Text = [u8; 29];

/// Writes a date; `None` where it can't be written.
pub(super) fn write(seconds: i64) -> Option<Text> {
    let date = Date::of(seconds);
    if seconds < 0 || date.year > LAST_YEAR {
        return None;
    }
    let mut text = *b"Sun, 06 Nov 1994 08:49:37 GMT";
    text[..3].copy_from_slice(date.weekday_name().as_bytes());
    text[8..11].copy_from_slice(date.month_name());
    for (at, number) in [
        (5, date.day),
        (12, date.year / 100),
        (14, date.year % 100),
        (17, date.hour),
        (20, date.minute),
        (23, date.second),
    ] {
        text[at..at + 2].copy_from_slice(&[b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]);
    }
    Some(text)
}

/// Reads a date in any of the three forms; `None` if it is none.
pub(super) fn read(text: &[u8], now: i64) -> Option<i64> {
    imf_fixdate(text).or_else(|| rfc850(text, now)).or_else(|| asctime(text))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &[u8]) -> Option<i64> {
    let (name, rest) = text.split_at_checked(3)?;
    DAYS.iter().find(|day| day.as_bytes().starts_with(name))?;
    let rest = rest.strip_prefix(b", ")?.strip_suffix(b" GMT")?;
    let [d1, d2, b' ', m1, m2, m3, b' ', y1, y2, y3, y4, b' ', time @ ..] = rest else { return None };
    moment(number(&[*y1, *y2, *y3, *y4])?, &[*m1, *m2, *m3], number(&[*d1, *d2])?, time)
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850(text: &[u8], now: i64) -> Option<i64> {
    let comma = text.iter().position(|&byte| byte == b',')?;
    let (name, rest) = text.split_at(comma);
    DAYS.iter().find(|day| day.as_bytes() == name)?;
    let rest = rest.strip_prefix(b", ")?.strip_suffix(b" GMT")?;
    let [d1, d2, b'-', m1, m2, m3, b'-', y1, y2, b' ', time @ ..] = rest else { return None };
    let in_century =
        |year: i64| moment(year + number(&[*y1, *y2])?, &[*m1, *m2, *m3], number(&[*d1, *d2])?, time);
    // more than 50 years ahead, it is the most recent such year of the past
    let this_year = Date::of(now).year;
    let limit = now + (days_until(this_year + 50, 1, 1) - days_until(this_year, 1, 1)) * 86_400;
    let century = this_year - this_year.rem_euclid(100);
    [century + 100, century, century - 100].into_iter().filter_map(in_century).find(|&then| then <= limit)
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime(text: &[u8]) -> Option<i64> {
    let [n1, n2, n3, b' ', m1, m2, m3, b' ', d1, d2, b' ', time @ .., b' ', y1, y2, y3, y4] = text else {
        return None;
    };
    DAYS.iter().find(|day| day.as_bytes().starts_with(&[*n1, *n2, *n3]))?;
    let day = if *d1 == b' ' { number(&[*d2])? } else { number(&[*d1, *d2])? };
    moment(number(&[*y1, *y2, *y3, *y4])?, &[*m1, *m2, *m3], day, time)
}

fn number(digits: &[u8]) -> Option<i64> {
    let add = |sum: i64, byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'));
    digits.iter().try_fold(0, add)
}

/// `time` is such as `08:49:37`.
fn moment(year: i64, month: &[u8], day: i64, time: &[u8]) -> Option<i64> {
    let month = 1 + MONTHS.iter().position(|known| known.as_slice() == month)? as i64;
    let [h1, h2, b':', m1, m2, b':', s1, s2] = time else { return None };
    let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?, number(&[*s1, *s2])?);
    let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let length = days_until(next.0, next.1, 1) - days_until(year, month, 1);
    // 60 is a leap second
    let is_sound = (1..=length).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    is_sound.then(|| days_until(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-29.
    const NOW: i64 = 1_795_910_400;

    #[test]
    fn each_form_is_read() {
        for text in
            ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]
        {
            assert_eq!(read(text.as_bytes(), NOW), Some(784_111_777), "{text}");
        }
        assert_eq!(read(b"Sun Nov 16 08:49:37 1994", NOW), Some(784_975_777));
        assert_eq!(read(b"Thu, 01 Jan 1903 00:00:00 GMT", NOW), Some(-2_114_380_800));
        assert_eq!(read(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW), Some(1_483_228_800));
        assert_eq!(read(b"Mon, 29 Feb 2016 00:00:00 GMT", NOW), Some(1_456_704_000));
    }

    #[test]
    fn a_year_of_two_digits_is_at_most_fifty_years_ahead() {
        let year = |digits: &str| {
            let text = format!("Monday, 01-Jan-{digits} 00:00:00 GMT");
            Date::of(read(text.as_bytes(), NOW).expect("a date")).year
        };
        assert_eq!(
            [year("26"), year("00"), year("70"), year("76"), year("77"), year("99")],
            [2026, 2000, 2070, 2076, 1977, 1999]
        );
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "yesterday",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "sun, 06 nov 1994 08:49:37 gmt",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 31 Apr 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 2015 00:00:00 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:49:37 GMT, Sun, 06 Nov 1994 08:49:37 GMT",
            "Foo, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
        ] {
            assert_eq!(read(text.as_bytes(), NOW), None, "{text}");
        }
    }

    #[test]
    fn what_can_not_be_written_is_left_out() {
        let text = |seconds| write(seconds).map(|text| String::from_utf8_lossy(&text).into_owned());
        assert_eq!(text(784_111_777).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!((text(-1), text(i64::MAX)), (None, None));
        assert_eq!(seconds(UNIX_EPOCH - Duration::from_millis(1)), -1);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(then in 0_i64..250_000_000_000) {
            let text = write(then).expect("a date");
            prop_assert_eq!(read(&text, NOW), Some(then));
        }

        #[test]
        fn nothing_is_too_odd(text in prop::collection::vec(any::<u8>(), 0..40), now in any::<i32>()) {
            read(&text, i64::from(now));
        }
    }
}
