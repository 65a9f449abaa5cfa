//! Notices as mail, by SMTP (RFC 5321) to the operator's server.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use lettre::address::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailParameter};
use tokio::time::timeout;

use super::Outcome;
use crate::config::{Email, MailTls};
use crate::edge::client::{CONNECT_TIMEOUT, cause, trusted};
use crate::pure::notice::Notice;

/// How to log in, the better way first.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];
/// The last moment that a mail's date can hold: the end of the year 9999.
const DATE_MAX_UNIX_S: u64 = 253_402_300_799;

/// Sends by the configured server.
pub(super) struct Sender {
    config: Email,
    tls: TlsParameters,
    /// What it calls itself to the server.
    hello: ClientId,
}

impl Sender {
    /// Fails where the server is to be trusted by the certificate authorities of the system, and there are none.
    pub(super) fn new(config: &Email) -> io::Result<Sender> {
        let mut tls = TlsParameters::builder(config.server.clone()).certificate_store(CertificateStore::None);
        if config.tls != MailTls::None {
            for certificate in trusted("notices.email.server")?.certificates.iter() {
                tls = tls.add_root_certificate(Certificate::from_der(certificate.to_vec()).map_err(io::Error::other)?);
            }
        }
        let tls = tls.build().map_err(io::Error::other)?;
        let hello = ClientId::Domain(config.from.email.domain().to_owned());
        Ok(Sender { config: config.clone(), tls, hello })
    }

    /// One attempt. A receiver whom the server refuses for good (5xx) is refused; any other trouble may pass.
    pub(super) async fn send(&self, notice: &Notice) -> Outcome {
        let Ok(to) = notice.account.parse::<Address>() else {
            return Outcome::refused("not an address that mail can be sent to");
        };
        let Ok(message) = self.message(notice, to.clone()) else {
            return Outcome::refused("the message could not be made");
        };
        match self.deliver(to, &message.formatted()).await {
            Ok(()) => Outcome::delivered("250"),
            Err(outcome) => outcome,
        }
    }

    /// The same at every attempt, date and id included.
    fn message(&self, notice: &Notice, to: Address) -> Result<Message, lettre::error::Error> {
        let domain = self.config.from.email.domain();
        Message::builder()
            .from(self.config.from.clone())
            .to(Mailbox::new(None, to))
            .subject(notice.subject())
            .date(UNIX_EPOCH + Duration::from_secs(notice.at_unix_s.min(DATE_MAX_UNIX_S)))
            .message_id(Some(format!("<{}@{domain}>", notice.id())))
            // So that nobody's absence is answered (RFC 3834, section 5).
            .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN)
            .body(notice.text())
    }

    async fn deliver(&self, to: Address, message: &[u8]) -> Result<(), Outcome> {
        let failed = |error| Outcome::failed(explain(&error));
        let refused = |error: smtp::Error| {
            if error.is_permanent() { Outcome::refused(explain(&error)) } else { failed(error) }
        };
        let from = self.config.from.email.clone();
        let mut connection = self.connect().await?;
        let mut parameters = Vec::new();
        if !from.to_string().is_ascii() || !to.to_string().is_ascii() {
            if !connection.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(Outcome::refused("the server takes no such address (SMTPUTF8)"));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        // What is said against the sender says nothing about the receiver.
        connection.command(Mail::new(Some(from), parameters)).await.map_err(failed)?;
        connection.command(Rcpt::new(to, Vec::new())).await.map_err(refused)?;
        connection.command(Data).await.map_err(failed)?;
        connection.message(message).await.map_err(refused)?;
        // The message is the server's now: whatever it makes of a goodbye, nobody waits for that.
        tokio::spawn(async move { timeout(CONNECT_TIMEOUT, connection.quit()).await.is_ok() });
        Ok(())
    }

    /// A connection, encrypted and logged in as configured.
    async fn connect(&self) -> Result<AsyncSmtpConnection, Outcome> {
        let failed = |error| Outcome::failed(explain(&error));
        let Email { server, port, tls, login, .. } = &self.config;
        let implicit = (*tls == MailTls::Implicit).then(|| self.tls.clone());
        let address = (server.as_str(), *port);
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT_TIMEOUT), &self.hello, implicit, None)
                .await
                .map_err(failed)?;
        if *tls == MailTls::Starttls {
            if !connection.can_starttls() {
                return Err(Outcome::failed("the server offers no STARTTLS"));
            }
            connection.starttls(self.tls.clone(), &self.hello).await.map_err(failed)?;
        }
        if let Some((username, password)) = login {
            if connection.server_info().get_auth_mechanism(&MECHANISMS).is_none() {
                return Err(Outcome::failed("the server offers no way to log in with a password"));
            }
            let credentials = Credentials::new(username.clone(), password.expose().clone());
            connection.auth(&MECHANISMS, &credentials).await.map_err(failed)?;
        }
        Ok(connection)
    }
}

fn explain(error: &smtp::Error) -> String {
    match error.status() {
        Some(code) => format!("status {code}"),
        None if error.is_response() => "connection closed, or no SMTP in answer".to_owned(),
        None => cause(error).unwrap_or_else(|| "no connection".to_owned()),
    }
}
