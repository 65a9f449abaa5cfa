//! Multipart bodies (RFC 7578): a part is a parameter. The body is in memory, so reading it never waits.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream;
use multer::{Error, Multipart};
use zeroize::Zeroizing;

use super::{Fault, Input, form, invalid_body};

/// How many parts a body may have.
const PARTS_MAX: usize = 16;

/// Reads the parts. A file for a known parameter is refused: a caller who uploads one is mistaken about the API.
pub(super) fn read(input: &mut Input<'_>, boundary: &str, body: &[u8]) -> Result<(), Fault> {
    let whole = stream::iter([Ok::<_, Error>(Bytes::copy_from_slice(body))]);
    let mut parts = Multipart::new(whole, boundary);
    let mut count = 0;
    while let Some(part) = ready(parts.next_field())? {
        count += 1;
        if count > PARTS_MAX {
            return Err(invalid_body(format!("more than {PARTS_MAX} parts")));
        }
        let index = part.name().and_then(|name| input.index(name));
        let is_file = part.file_name().is_some();
        let content = ready(part.bytes())?;
        let Some(index) = index else { continue };
        if is_file {
            return Err(invalid_body(format!("parameter `{}` was sent as a file", input.names[index])));
        }
        let not_text = || invalid_body(format!("parameter `{}` is not valid UTF-8", input.names[index]));
        let text = form::owned(Zeroizing::new(content.to_vec())).ok_or_else(not_text)?;
        input.put(index, text)?;
    }
    Ok(())
}

/// The result of a future whose data is all there.
fn ready<T>(step: impl Future<Output = multer::Result<T>>) -> Result<T, Fault> {
    let malformed = || invalid_body("not valid multipart/form-data");
    step.now_or_never().ok_or_else(malformed)?.map_err(|_| malformed())
}
