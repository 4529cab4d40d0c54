//! The Gregorian calendar, in UTC, as seconds since 1970: pure.

/// The names of the months, of which protocols write the first three letters.
pub(super) const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The names of the days of the week.
pub(super) const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// A second of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: i64,
    /// From 1 on, as `day`.
    pub(super) month: i64,
    pub(super) day: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
    /// 0 is Monday.
    pub(super) weekday: i64,
}

impl Date {
    /// The date of this time.
    pub(super) fn of(seconds: i64) -> Self {
        let (days, time) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Years begin in March here, so that the leap day is the last one; an era is 400 of them.
        let from_march_0 = days + 719_468;
        let (era, of_era) = (from_march_0.div_euclid(146_097), from_march_0.rem_euclid(146_097));
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year + i64::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
            // the first day of 1970 was a Thursday
            weekday: (days + 3).rem_euclid(7),
        }
    }

    /// The first three letters of the name of the day.
    pub(super) fn weekday_name(&self) -> &'static str {
        &DAYS[self.weekday as usize][..3]
    }

    /// The first three letters of the name of the month.
    pub(super) fn month_name(&self) -> &'static [u8; 3] {
        MONTHS[self.month as usize - 1]
    }
}

/// Days from 1 January 1970 to this one.
#[cfg(any(feature = "http", test))]
pub(super) fn days_until(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_that_are_known() {
        for (seconds, expected) in [
            (0, (1970, 1, 1, 0, 0, 0, "Thu")),
            (784_111_777, (1994, 11, 6, 8, 49, 37, "Sun")),
            (951_782_399, (2000, 2, 28, 23, 59, 59, "Mon")),
            (951_782_400, (2000, 2, 29, 0, 0, 0, "Tue")),
            (-1, (1969, 12, 31, 23, 59, 59, "Wed")),
            (253_402_300_799, (9999, 12, 31, 23, 59, 59, "Fri")),
        ] {
            let date = Date::of(seconds);
            let found = (date.year, date.month, date.day, date.hour, date.minute, date.second);
            let (year, month, day, hour, minute, second, weekday) = expected;
            assert_eq!((found, date.weekday_name()), ((year, month, day, hour, minute, second), weekday));
        }
    }

    proptest! {
        #[test]
        fn a_date_is_that_of_its_second(seconds in -100_000_000_000_i64..300_000_000_000) {
            let date = Date::of(seconds);
            let days = days_until(date.year, date.month, date.day);
            prop_assert_eq!(days * 86_400 + date.hour * 3600 + date.minute * 60 + date.second, seconds);
        }
    }
}
