//! One test for several models.

/// Each test for each of these models, as `name::fork` and so on, with the model's options:
/// `under_models! { [fork prefork] fn name(model) { Daemon::start(model); } }`
///
/// Where one client is to be served beside another, there are enough workers.
macro_rules! under_models {
    ($models:tt $($(#[$attribute:meta])* fn $name:ident($model:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            fn check($model: &str) $body

            $crate::common::under_models! { @tests $models }
        }
    )*};
    (@tests [$($model:ident)*]) => {$(
        #[test]
        fn $model() {
            check($crate::common::options_of(stringify!($model)));
        }
    )*};
}
pub(crate) use under_models;

pub fn options_of(model: &str) -> &'static str {
    match model {
        "fork" => "-m fork",
        "spare" => "-m fork --spare 3",
        "prefork" => "-m prefork -w 2",
        "iterative" => "-m iterative",
        "thread" => "-m thread",
        "threads" => "-m thread --threads 2",
        "event" => "-m event",
        "coroutine" => "-m coroutine",
        model => unreachable!("{model}"),
    }
}

/// Each has room for one client.
pub const ONE_PLACE: [&str; 7] = [
    "--max-children 1",
    "-m prefork -w 1",
    "-m iterative",
    "-m thread --max-threads 1",
    "-m thread --threads 1",
    "-m event --max-connections 1",
    "-m coroutine --max-connections 1",
];
