//! Downloads a file over HTTP: an interrupted download resumes, and the file is checked before it gets its
//! name.
//!
//! Bytes go to `<file>.part`, which is locked against a second fetch. After an interruption the rest is
//! requested (`Range`), on condition that the file is still the same (`If-Range` with the entity tag stored
//! in `<file>.part.etag`). If the server sends the whole file instead, the download starts over. Only a file
//! of the right length and SHA-256 is kept; if a resumed file is wrong, it is fetched once more from the
//! start.
//!
//! A fetch always ends, whatever the server does. A try ends when bytes arrive more slowly than
//! [`Patience::slowest`]. Only bytes beyond the largest number held so far count as progress.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::http::{HeaderMap, StatusCode};

use crate::digest;
use crate::error::DataError;
use crate::part::Part;

/// The progress of a fetch; the caller computes rates and remaining time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The current step.
    pub phase: Phase,
    /// The file of the step.
    pub file: String,
    /// The number of bytes done, including those of an earlier, interrupted download.
    pub bytes: u64,
    /// The total number of bytes.
    pub total: u64,
}

/// A step of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Bytes are downloaded.
    Download,
    /// The checksum is computed.
    Check,
    /// Files are unpacked.
    Unpack,
}

/// A file to download.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    /// The address of the file.
    pub url: String,
    /// The published length in bytes.
    pub bytes: u64,
    /// The published checksum.
    pub sha256: String,
}

/// The limits at which a download is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// The number of tries in a row without progress before giving up.
    pub tries: u32,
    /// The number of bytes beyond the largest number held so far that counts as progress.
    pub progress: u64,
    /// The wait after the first failed try. Each later wait is longer by this time.
    pub pause: Duration,
    /// The longest silence of a server, and the time over which its rate is measured.
    pub silence: Duration,
    /// The lowest rate that is accepted, in bytes per second.
    pub slowest: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            tries: 5,
            progress: 1 << 16,
            pause: Duration::from_secs(2),
            silence: Duration::from_mins(1),
            slowest: 1 << 10,
        }
    }
}

/// Downloads `remote` and returns the path of its checked bytes, `<path>.part`. The caller removes it after
/// use.
pub(crate) fn download(
    remote: &Remote,
    path: &Path,
    patience: Patience,
    progress: &mut dyn FnMut(Progress),
) -> Result<PathBuf, DataError> {
    let part = Part::open(path)?;
    let resumed = part.length()? > 0;
    let mut transfer = Transfer { remote, part, patience, agent: agent(patience), resumed };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut report = |phase, bytes| {
        progress(Progress { phase, file: name.clone(), bytes, total: remote.bytes });
    };
    let mut restarted = false;
    loop {
        transfer.run(&mut |bytes| report(Phase::Download, bytes))?;
        let part = &transfer.part;
        let (found, found_bytes) = digest::of_file(part.path(), &mut |bytes| report(Phase::Check, bytes))?;
        if found == remote.sha256 && found_bytes == remote.bytes {
            part.forget_tag();
            return Ok(part.path().to_owned());
        }
        if restarted || !transfer.resumed {
            part.remove();
            return Err(DataError::Checksum {
                url: remote.url.clone(),
                found,
                expected: remote.sha256.clone(),
                found_bytes,
                expected_bytes: remote.bytes,
            });
        }
        tracing::warn!(url = remote.url, "the resumed download has a wrong checksum; starting it over");
        transfer.clear()?;
        restarted = true;
    }
}

fn agent(patience: Patience) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(patience.silence))
        .timeout_recv_response(Some(patience.silence))
        .timeout_per_read(Some(patience.silence))
        .user_agent(concat!("invaspread/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

struct Transfer<'a> {
    remote: &'a Remote,
    part: Part,
    patience: Patience,
    agent: Agent,
    /// Whether the bytes held came in several pieces, which may be of different files.
    resumed: bool,
}

/// The result of a request.
enum Step {
    /// All bytes have arrived.
    Whole,
    /// The connection broke, so the rest must be requested.
    Broken(String),
}

impl Transfer<'_> {
    /// Sends requests until all bytes have arrived.
    fn run(&mut self, each: &mut dyn FnMut(u64)) -> Result<(), DataError> {
        // A server may break off earlier each time: then it sends bytes, but none beyond those already held.
        let (mut fruitless, mut most) = (0, self.part.length()?);
        loop {
            let mut held = self.part.length()?;
            if held == self.remote.bytes {
                return Ok(());
            }
            if held > self.remote.bytes {
                self.clear()?;
                held = 0;
            }
            match self.request(held, each)? {
                Step::Whole => return Ok(()),
                Step::Broken(why) => {
                    let held = self.part.length()?;
                    if held >= most + self.patience.progress {
                        (fruitless, most) = (0, held);
                    } else {
                        fruitless += 1;
                    }
                    if fruitless >= self.patience.tries {
                        let tries = self.patience.tries;
                        let found = format!("{why}, and no progress in {tries} tries");
                        let advice = match held {
                            0 => "try again later, or name a mirror".to_owned(),
                            _ => format!(
                                "the {held} of {} bytes that have arrived are kept: run the same command again to go on from \
                                 there, or name a mirror",
                                self.remote.bytes
                            ),
                        };
                        return Err(self.http(found, &advice));
                    }
                    tracing::warn!(url = self.remote.url, why, "the download broke; going on");
                    std::thread::sleep(self.patience.pause * (fruitless + 1));
                }
            }
        }
    }

    fn request(&mut self, held: u64, each: &mut dyn FnMut(u64)) -> Result<Step, DataError> {
        let mut request = self.agent.get(&self.remote.url).header("Accept-Encoding", "identity");
        if held > 0 {
            request = request.header("Range", format!("bytes={held}-"));
            if let Some(tag) = self.part.tag() {
                request = request.header("If-Range", tag);
            }
        }
        let mut response = match request.call() {
            Ok(response) => response,
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                return Err(self.http(error.to_string(), "check the address"));
            }
            Err(error) => return Ok(Step::Broken(error.to_string())),
        };
        let start = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), held) => held,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                self.clear()?;
                return Ok(Step::Broken("an answer that does not continue the download".to_owned()));
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Ok(Step::Broken(format!("status {status}")));
            }
            status => return Err(self.http(format!("status {status}"), refusal(status))),
        };
        if start == 0 {
            self.clear()?;
            self.part.keep_tag(response.headers().get("etag").and_then(|tag| tag.to_str().ok()))?;
        }
        self.resumed = start > 0;
        self.part.seek(start)?;
        // One byte beyond the published length shows that it is another file.
        let mut body = response.body_mut().as_reader().take(self.remote.bytes + 1 - start);
        let (mut buffer, mut bytes) = (vec![0; 1 << 16], start);
        let (mut since, mut before) = (Instant::now(), start);
        loop {
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    self.part.write(&buffer[..read])?;
                    bytes += read as u64;
                    each(bytes);
                }
                Err(error) => return Ok(Step::Broken(error.to_string())),
            }
            if since.elapsed() >= self.patience.silence {
                let rate = (bytes - before) as f64 / since.elapsed().as_secs_f64();
                if rate < self.patience.slowest as f64 {
                    let (rate, slowest) = (rate.ceil(), self.patience.slowest);
                    let why = format!("{rate} bytes a second, which is less than {slowest}");
                    return Ok(Step::Broken(why));
                }
                (since, before) = (Instant::now(), bytes);
            }
        }
        self.part.flush()?;
        if bytes >= self.remote.bytes {
            return Ok(Step::Whole);
        }
        if start == 0
            && response.headers().get("content-length").is_some_and(|length| length == &bytes.to_string())
        {
            // The file of the server is shorter than the published one; comparing the checksum will show it.
            return Ok(Step::Whole);
        }
        Ok(Step::Broken(format!("a connection that closed after {bytes} of {} bytes", self.remote.bytes)))
    }

    fn clear(&mut self) -> Result<(), DataError> {
        self.resumed = false;
        self.part.clear()
    }

    fn http(&self, found: String, advice: &str) -> DataError {
        DataError::Http { url: self.remote.url.clone(), found, advice: advice.to_owned() }
    }
}

/// Returns advice for a server that refuses the file.
fn refusal(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 | 407 | 451 => {
            "the server is there and refuses to give the file, to you, to your network or to programs: name another mirror, or put \
             the file into the data folder by hand"
        }
        404 | 410 => "the server does not have the file: check the address, or name another mirror",
        _ => "check the address, or name another mirror",
    }
}

/// Returns whether a `206` continues at `held`: `Content-Range: bytes <first>-<last>/<all>`.
fn starts_at(headers: &HeaderMap, held: u64) -> bool {
    let range = headers.get("content-range").and_then(|range| range.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    first == Some(held)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::sample::{Answer, Server};

    const QUICK: Patience = Patience {
        tries: 3,
        progress: 1 << 10,
        pause: Duration::from_millis(1),
        silence: Duration::from_secs(10),
        slowest: 1,
    };

    fn content() -> Vec<u8> {
        (0..200_000u64).map(|i| (i * i / 7) as u8).collect()
    }

    fn remote(server: &Server, content: &[u8]) -> Remote {
        Remote {
            url: format!("{}/set.tar.gz", server.url()),
            bytes: content.len() as u64,
            sha256: digest::of_bytes(content),
        }
    }

    struct Outcome {
        result: Result<Vec<u8>, DataError>,
        requests: Vec<String>,
        left: Vec<String>,
    }

    /// Downloads from a server that gives `answers` in turn. `part` and its `tag` exist before.
    fn attempt(answers: Vec<Answer>, part: Option<&[u8]>, tag: Option<&str>) -> Outcome {
        let server = Server::start(content(), answers);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.tar.gz");
        if let Some(part) = part {
            fs_err::write(folder.path().join("set.tar.gz.part"), part).unwrap();
        }
        if let Some(tag) = tag {
            fs_err::write(folder.path().join("set.tar.gz.part.etag"), tag).unwrap();
        }
        let mut last = 0;
        let result = download(&remote(&server, &content()), &path, QUICK, &mut |progress| {
            assert!(progress.total == 200_000 && progress.bytes <= 200_001 && progress.file == "set.tar.gz");
            last = progress.bytes;
        });
        let result = result.map(|part| fs_err::read(part).unwrap());
        assert!(result.is_err() || last == 200_000);
        let mut left: Vec<String> = fs_err::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        Outcome { result, requests: server.stop(), left }
    }

    #[test]
    fn a_whole_file_comes_in_one_request() {
        let outcome = attempt(vec![Answer::Whole], None, None);
        assert!(outcome.result.unwrap() == content());
        assert_eq!((outcome.requests.len(), outcome.left), (1, vec!["set.tar.gz.part".to_owned()]));
        assert!(!outcome.requests[0].contains("range:"));
    }

    #[test]
    fn a_connection_that_breaks_midway_is_taken_up_where_it_broke() {
        let outcome = attempt(vec![Answer::BreakAfter(70_000), Answer::Whole], None, None);
        assert!(outcome.result.unwrap() == content());
        assert!(outcome.requests[1].contains("range: bytes=70000-"), "{}", outcome.requests[1]);
        assert!(outcome.requests[1].contains("if-range: \"tag\""), "{}", outcome.requests[1]);
    }

    #[test]
    fn an_earlier_part_is_gone_on_with() {
        let outcome = attempt(vec![Answer::Whole], Some(&content()[..150_000]), Some("\"tag\""));
        assert!(outcome.result.unwrap() == content());
        assert!(outcome.requests[0].contains("range: bytes=150000-"));
    }

    #[test]
    fn a_server_without_ranges_starts_it_over() {
        let outcome = attempt(vec![Answer::IgnoreRange], Some(&content()[..150_000]), None);
        assert!(outcome.result.unwrap() == content());
        assert_eq!(outcome.requests.len(), 1);
    }

    #[test]
    fn a_part_of_another_file_is_found_out_and_fetched_again() {
        // With another tag, the server sends the whole file. Without a tag, the checksum shows that the bytes
        // are wrong.
        let other = vec![9; 150_000];
        let tagged = attempt(vec![Answer::Whole], Some(&other), Some("\"old\""));
        assert!(tagged.result.unwrap() == content());
        assert_eq!(tagged.requests.len(), 1);
        let untagged = attempt(vec![Answer::Whole, Answer::Whole], Some(&other), None);
        assert!(untagged.result.unwrap() == content());
        assert_eq!(untagged.requests.len(), 2);
        let full = attempt(vec![Answer::Whole], Some(&vec![9; 200_000]), None);
        assert!(full.result.unwrap() == content());
    }

    #[test]
    fn a_wrong_checksum_names_both_and_leaves_nothing() {
        for wrong in [vec![1; 200_000], vec![1; 10], vec![1; 300_000]] {
            let length = wrong.len().min(200_001);
            let outcome = attempt(vec![Answer::Other(wrong)], None, None);
            let message = outcome.result.unwrap_err().to_string();
            assert!(message.contains(&format!("{length} bytes")), "{message}");
            assert!(
                message.contains(&digest::of_bytes(&content())) && message.contains("set.tar.gz"),
                "{message}"
            );
            assert_eq!(outcome.left, Vec::<String>::new());
        }
    }

    #[test]
    fn a_refusal_is_not_tried_again_and_is_called_what_it_is() {
        let absent = "does not have the file";
        let refused = "refuses to give the file";
        for (status, what) in [
            (404, absent),
            (410, absent),
            (401, refused),
            (403, refused),
            (451, refused),
            (400, "check the address"),
        ] {
            let outcome = attempt(vec![Answer::Status(status)], None, None);
            let message = outcome.result.unwrap_err().to_string();
            for part in [&status.to_string(), "/set.tar.gz", "mirror", what] {
                assert!(message.contains(part), "{message}");
            }
            assert_eq!(outcome.requests.len(), 1);
        }
    }

    /// Returns the message of a download that must end by itself, and the number of requests.
    fn ends(answers: Vec<Answer>, part: Option<&[u8]>) -> (String, usize) {
        let outcome = attempt(answers, part, None);
        (outcome.result.unwrap_err().to_string(), outcome.requests.len())
    }

    #[test]
    fn a_byte_a_connection_is_no_progress() {
        let (message, requests) = ends(vec![Answer::Some(1); 100], Some(&content()[..70_000]));
        assert!(message.contains("no progress in 3 tries"), "{message}");
        assert!(message.contains("the 70003 of 200000 bytes that have arrived are kept"), "{message}");
        assert_eq!(requests, 3);
    }

    #[test]
    fn small_gains_add_up_to_progress() {
        // Each try gets 400 bytes, so the sum passes the kilobyte that counts as progress in every third try.
        let mut answers = vec![Answer::Some(400); 9];
        answers.push(Answer::Whole);
        let outcome = attempt(answers, Some(&content()[..70_000]), None);
        assert!(outcome.result.unwrap() == content());
        assert_eq!(outcome.requests.len(), 10);
    }

    #[test]
    fn a_server_without_ranges_that_breaks_off_earlier_each_time_is_given_up() {
        let answers = (0..50).map(|i| Answer::BreakAfter(150_000 - 3_000 * i)).collect();
        let (message, requests) = ends(answers, None);
        // The first try makes progress. No later try holds more bytes than the first one.
        assert!(message.contains("no progress in 3 tries"), "{message}");
        assert_eq!(requests, 4);
    }

    #[test]
    fn a_server_that_drips_is_given_up() {
        let server = Server::start(content(), vec![Answer::Drip(2000); 3]);
        let folder = tempfile::tempdir().unwrap();
        let patience = Patience { silence: Duration::from_millis(300), slowest: 1 << 20, tries: 2, ..QUICK };
        let from = Instant::now();
        let result =
            download(&remote(&server, &content()), &folder.path().join("set.tar.gz"), patience, &mut |_| ());
        let message = result.unwrap_err().to_string();
        assert!(message.contains("bytes a second, which is less than 1048576"), "{message}");
        // Without the limits, the server would send single bytes for ten seconds in each try.
        assert!(from.elapsed() < Duration::from_secs(8), "{:?}", from.elapsed());
        server.stop();
    }

    #[test]
    fn a_damaged_tag_does_not_fail_the_download() {
        for tag in ["\0\0\0\0\0\0", "", "\"a\nb\"", "garbage"] {
            let outcome = attempt(vec![Answer::Whole], Some(&content()[..150_000]), Some(tag));
            assert!(outcome.result.unwrap() == content());
            assert!(!outcome.requests[0].contains("if-range"), "{}", outcome.requests[0]);
            assert!(outcome.requests[0].contains("range: bytes=150000-"), "{}", outcome.requests[0]);
        }
    }

    #[test]
    fn a_busy_server_is_tried_again_but_not_for_ever() {
        let outcome = attempt(vec![Answer::Status(503), Answer::Whole], None, None);
        assert!(outcome.result.unwrap() == content());
        let outcome = attempt(vec![Answer::Status(503); 3], Some(&content()[..5]), None);
        let message = outcome.result.unwrap_err().to_string();
        assert!(message.contains("503") && message.contains("kept"), "{message}");
        assert_eq!((outcome.requests.len(), outcome.left.len()), (3, 1));
    }

    #[test]
    fn a_second_fetch_of_the_same_file_is_refused() {
        let server = Server::start(content(), vec![]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.tar.gz");
        let held = fs_err::File::create(folder.path().join("set.tar.gz.part")).unwrap();
        held.file().lock().unwrap();
        let error = download(&remote(&server, &content()), &path, QUICK, &mut |_| ()).unwrap_err();
        assert!(matches!(error, DataError::Busy { .. }), "{error}");
        server.stop();
    }
}
