//! What a file is, by the end of its name (IANA's media types). A short list, as nginx has one: what is not
//! on it is bytes.

/// What a text for people is.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// What nothing is known of.
pub(super) const BYTES: &str = "application/octet-stream";

/// Tells what a path names by its end.
pub(super) fn of(path: &[u8]) -> Option<&'static str> {
    let name = path.rsplit(|&byte| byte == b'/').next()?;
    let dot = name.iter().rposition(|&byte| byte == b'.')?;
    let end = name[dot + 1..].to_ascii_lowercase();
    Some(match &*end {
        b"html" | b"htm" => "text/html; charset=utf-8",
        b"css" => "text/css; charset=utf-8",
        b"js" | b"mjs" => "text/javascript; charset=utf-8",
        b"txt" | b"log" | b"conf" | b"toml" => TEXT,
        b"md" => "text/markdown; charset=utf-8",
        b"csv" => "text/csv; charset=utf-8",
        b"xml" => "text/xml; charset=utf-8",
        b"json" | b"map" => "application/json",
        b"webmanifest" => "application/manifest+json",
        b"pdf" => "application/pdf",
        b"wasm" => "application/wasm",
        b"zip" => "application/zip",
        b"gz" | b"tgz" => "application/gzip",
        b"tar" => "application/x-tar",
        b"svg" => "image/svg+xml",
        b"png" => "image/png",
        b"jpg" | b"jpeg" => "image/jpeg",
        b"gif" => "image/gif",
        b"webp" => "image/webp",
        b"avif" => "image/avif",
        b"ico" => "image/vnd.microsoft.icon",
        b"woff" => "font/woff",
        b"woff2" => "font/woff2",
        b"ttf" => "font/ttf",
        b"otf" => "font/otf",
        b"mp3" => "audio/mpeg",
        b"ogg" | b"oga" => "audio/ogg",
        b"wav" => "audio/wav",
        b"mp4" => "video/mp4",
        b"webm" => "video/webm",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_name_tells() {
        assert_eq!(of(b"/a/b.HTML"), Some("text/html; charset=utf-8"));
        assert_eq!(of(b"/a.tar.gz"), Some("application/gzip"));
        assert_eq!(of(b"/a.png/b"), None);
        assert_eq!((of(b"/a"), of(b"/a."), of(b"/a.xyz")), (None, None, None));
    }
}
