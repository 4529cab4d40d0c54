//! A path and its text, as the service http is told them.

use std::fmt;
use std::str::FromStr;

use super::values::InvalidValue;

/// A path and what http answers there: `PATH=TEXT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteText {
    /// The path, which begins with a slash.
    pub path: String,
    /// What is answered.
    pub text: String,
}

impl FromStr for RouteText {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.split_once('=') {
            // as a path is compared: with one slash between any two parts, and none at the end
            Some((path, text)) if path.starts_with('/') && !path[1..].split('/').any(str::is_empty) => {
                Ok(Self { path: path.to_owned(), text: text.to_owned() })
            }
            Some(("/", text)) => Ok(Self { path: "/".to_owned(), text: text.to_owned() }),
            _ => Err(InvalidValue(format!(
                "{text:?} is no path with its text; write them as PATH=TEXT, such as /hello=Hello, with no slash at the \
                 path's end"
            ))),
        }
    }
}

impl fmt::Display for RouteText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.path, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_path_and_its_text() {
        let route = |path: &str, text: &str| RouteText { path: path.into(), text: text.into() };
        assert_eq!("/a/b=c=d".parse(), Ok(route("/a/b", "c=d")));
        assert_eq!("/=".parse(), Ok(route("/", "")));
        assert_eq!(route("/a", "b").to_string(), "/a=b");
        for text in ["", "/a", "a=b", "/a/=b", "//a=b", "//=b"] {
            assert!(
                text.parse::<RouteText>().unwrap_err().to_string().contains("write them as PATH=TEXT"),
                "{text}"
            );
        }
    }
}
