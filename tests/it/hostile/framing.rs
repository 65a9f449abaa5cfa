//! Requests whose end two programs could see in different places.

use super::{MALFORMED, UNREADABLE, play};

#[test]
fn a_body_has_one_length() {
    play(&[
        ("length and chunks", "$postContent-Length: 4\nTransfer-Encoding: chunked\n\n0\n\n$smuggled", MALFORMED),
        ("chunks and length", "$postTransfer-Encoding: chunked\nContent-Length: 4\n\n0\n\n$smuggled", MALFORMED),
        (
            "chunks and length on a GET",
            "$getTransfer-Encoding: chunked\nContent-Length: 4\n\n0\n\n$smuggled",
            MALFORMED,
        ),
        ("two lengths", "$postContent-Length: 29\nContent-Length: 2\n\n$body$smuggled", UNREADABLE),
        ("the same length twice", "$postContent-Length: 29\nContent-Length: 29\n\n$body$smuggled", MALFORMED),
        ("a list of lengths", "$postContent-Length: 29, 29\n\n$body$smuggled", UNREADABLE),
        ("a length with a sign", "$postContent-Length: +29\n\n$body$smuggled", UNREADABLE),
        ("a length below zero", "$postContent-Length: -1\n\n$smuggled", UNREADABLE),
        ("a length in hexadecimal", "$postContent-Length: 0x1d\n\n$body$smuggled", UNREADABLE),
        ("an empty length", "$postContent-Length:\n\n$smuggled", UNREADABLE),
        ("a length beyond 64 bits", "$postContent-Length: 18446744073709551645\n\n$body$smuggled", UNREADABLE),
        (
            "the largest length",
            "$postContent-Length: 18446744073709551615\n\n$body",
            "431 headers-too-large json, closed",
        ),
        ("a huge length", "$postContent-Length: 9000000000000000000\n\n$body", "413 body-too-large yaml, closed"),
        ("white space around a length", "$postContent-Length: \t29 \n\n$body", "200 yaml, kept"),
        ("zeros before a length", "$postContent-Length: 0029\n\n$body", "200 yaml, kept"),
        ("no length at all", "$post\n", "400 missing-secret yaml, kept"),
        ("a body of GET is no request", "$getContent-Length: 29\n\n$body", "200 yaml, kept"),
    ]);
}

#[test]
fn the_one_transfer_coding_is_chunked() {
    let chunked = "\n\n1d\n$body\n0\n\n";
    let row = |lines: &str| format!("$post{lines}{chunked}$smuggled");
    play(&[
        ("chunked", &format!("$postTransfer-Encoding: chunked{chunked}"), "200 yaml, kept"),
        ("in capitals", &format!("$postTransfer-Encoding: CHUNKED{chunked}"), "200 yaml, kept"),
        ("with white space around", &format!("$postTransfer-Encoding: \t chunked\t {chunked}"), "200 yaml, kept"),
        ("behind another", &row("Transfer-Encoding: gzip, chunked"), MALFORMED),
        ("behind another line", &row("Transfer-Encoding: gzip\nTransfer-Encoding: chunked"), MALFORMED),
        ("before another", &row("Transfer-Encoding: chunked, gzip"), UNREADABLE),
        ("twice", &row("Transfer-Encoding: chunked, chunked"), MALFORMED),
        ("on two lines", &row("Transfer-Encoding: chunked\nTransfer-Encoding: chunked"), MALFORMED),
        ("in a list with an empty place", &row("Transfer-Encoding: ,chunked"), MALFORMED),
        ("with a parameter", &row("Transfer-Encoding: chunked;a=b"), UNREADABLE),
        ("in quotes", &row("Transfer-Encoding: \"chunked\""), UNREADABLE),
        ("misspelt", &row("Transfer-Encoding: xchunked"), UNREADABLE),
        ("identity", &row("Transfer-Encoding: identity"), UNREADABLE),
        ("empty", &row("Transfer-Encoding:"), UNREADABLE),
        ("with a vertical tab", &row("Transfer-Encoding: \u{b}chunked"), UNREADABLE),
        ("space before the colon", &row("Transfer-Encoding : chunked"), UNREADABLE),
        (
            "in HTTP/1.0",
            &format!("POST /v1/totpgenerator HTTP/1.0\nX-API-Key: $key\nTransfer-Encoding: chunked{chunked}$smuggled"),
            UNREADABLE,
        ),
    ]);
}

#[test]
fn chunks_are_as_they_should_be_or_refused() {
    let row = |chunks: &str| format!("$postTransfer-Encoding: chunked\n\n{chunks}");
    play(&[
        ("an extension", &row("1d;a=\"b;c\"\n$body\n0;d\n\n"), "200 yaml, kept"),
        ("leading zeros", &row("0000001D\n$body\n000\n\n"), "200 yaml, kept"),
        ("white space after the size", &row("1d \t\n$body\n0\n\n"), "200 yaml, kept"),
        ("trailers", &row("1d\n$body\n0\nContent-Length: 900\nX-API-Key: other\nHost: other\n\n"), "200 yaml, kept"),
        ("a trailer that is no header", &row("1d\n$body\n0\nno colon\n\n$smuggled"), MALFORMED),
        ("a trailer with a bare line feed", &row("1d\n$body\n0\nX: y↵\n$smuggled"), MALFORMED),
        ("a size with 0x", &row("0x1d\n$body\n0\n\n$smuggled"), MALFORMED),
        ("a size with a sign", &row("+1d\n$body\n0\n\n$smuggled"), MALFORMED),
        ("a size below zero", &row("-1\n$body\n0\n\n$smuggled"), MALFORMED),
        ("no size", &row("\n$body\n0\n\n$smuggled"), MALFORMED),
        ("a size beyond 64 bits", &row("1000000000000001d\n$body\n0\n\n$smuggled"), MALFORMED),
        ("a bare line feed after the size", &row("1d↵$body\n0\n\n$smuggled"), MALFORMED),
        ("a bare line feed in an extension", &row("1d;a↵$body\n0\n\n$smuggled"), MALFORMED),
        ("no line end after the data", &row("1d\n$body0\n\n$smuggled"), MALFORMED),
        ("a bare line feed after the data", &row("1d\n$body↵0\n\n$smuggled"), MALFORMED),
        ("extensions without end", &row("1d;$17k\n$body\n0\n\n$smuggled"), MALFORMED),
        ("more than is read", &row("4269\n$17k\n0\n\n$smuggled"), "413 body-too-large yaml, closed"),
    ]);
}

#[test]
fn lines_end_where_everybody_sees_them_end() {
    play(&[
        ("line feeds alone", "GET /v1/nothing HTTP/1.1↵Host: t↵↵$smuggled", UNREADABLE),
        ("one line feed alone", "$postX: y↵Content-Length: 29\n\n$body$smuggled", MALFORMED),
        ("a line feed that hides chunks", "$postX: y↵Transfer-Encoding: chunked\n\n0\n\n$smuggled", MALFORMED),
        ("a line feed that ends the head", "$getX: y\n↵$smuggled", MALFORMED),
        ("carriage returns alone", "GET / HTTP/1.1←Host: t←←", UNREADABLE),
        ("a carriage return in a value", "$getX: a←b\n\n$smuggled", UNREADABLE),
        ("a folded line", "$getX: a\n b\n\n$smuggled", UNREADABLE),
        ("a folded line with a tab", "$getX: a\n\tTransfer-Encoding: chunked\n\n$smuggled", UNREADABLE),
        ("a folded first line", "GET /v1/nothing HTTP/1.1\n Host: t\n\n$smuggled", UNREADABLE),
        ("an empty line first", "\n$get\n", "200 yaml, kept"),
    ]);
}
