//! Messages of errors of the CUDA driver and of NVIDIA's libraries, for people.

/// Returns the message of an error from its debug form: `DriverError(CODE, "text")` becomes "text (CODE)",
/// and `CudnnError(CODE)` becomes "CODE". Any other form stays as it is.
pub(crate) fn message(debug: &str) -> String {
    let inside = debug.strip_suffix(')').and_then(|rest| rest.split_once('(')).map(|(_, inside)| inside);
    let Some(inside) = inside else { return debug.to_owned() };
    let is_code =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    match inside.split_once(", ") {
        Some((code, text)) if is_code(code) => {
            format!("{} ({code})", text.trim_matches('"'))
        }
        None if is_code(inside) => inside.to_owned(),
        _ => debug.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn text_comes_before_the_code() {
        for (debug, expected) in [
            (
                "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")",
                "out of memory (CUDA_ERROR_OUT_OF_MEMORY)",
            ),
            ("CudnnError(CUDNN_STATUS_NOT_SUPPORTED)", "CUDNN_STATUS_NOT_SUPPORTED"),
            ("CublasError(CUBLAS_STATUS_ALLOC_FAILED)", "CUBLAS_STATUS_ALLOC_FAILED"),
            ("a message of candle's", "a message of candle's"),
            ("Os { code: 2, message: \"(none)\" }", "Os { code: 2, message: \"(none)\" }"),
        ] {
            assert_eq!(message(debug), expected);
        }
    }
}
