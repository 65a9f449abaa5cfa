//! What the fuzz targets have in common.

use polygate::pure::fault::Fault;
use polygate::pure::input::{BodyKind, Input};
use polygate::pure::totp::Params;

/// Reads `body` as a caller's, checks what must hold whatever was sent, and returns how reading went.
pub fn read_body<'a>(kind: BodyKind<'_>, body: &'a [u8]) -> Result<Input<'a>, Fault> {
    let mut input = Input::new(Params::NAMES);
    let result = input.read_body(kind, body);
    if let Err(fault) = &result {
        // A reason is a fixed text and at most a position, so it is short and ASCII whatever was sent.
        assert!(matches!(fault, Fault::InvalidBody(_) | Fault::DuplicateParameter(_)), "{fault:?}");
        let message = fault.message();
        assert!(message.is_ascii() && message.len() < 120, "{message}");
    }
    result?;
    match Params::read(&input) {
        Ok(params) => {
            assert!((6..=8).contains(&params.digits) && (1..=300).contains(&params.period));
            let token = params.otp_at(1_765_924_235).expect("a stamp can hold that time").token;
            assert!(token.as_str().len() == usize::from(params.digits));
            assert!(token.as_str().bytes().all(|byte| byte.is_ascii_digit()));
        }
        Err(fault) => assert_eq!(fault.status(), 400),
    }
    Ok(input)
}
