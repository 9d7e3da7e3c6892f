//! TLS with real certificates: the endpoint, and the way to Redis.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use mcp_messaging::{
    http::HttpConfig,
    tls::{self, CertificateFiles},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    house::{Client, Over, eventually, post, quick},
    support::{Authority, Persistence, RedisServer, Replica},
};

/// A Redis that speaks TLS on a port of its own and wants to see a certificate.
struct SafeRedis {
    authority: Authority,
    port: u16,
    _server: RedisServer,
}

impl SafeRedis {
    fn start() -> Self {
        let authority = Authority::new();
        let own = authority.issue("127.0.0.1");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let word = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        let server = RedisServer::start_with(
            Persistence::None,
            &[
                &["--tls-port", &port.to_string(), "--tls-auth-clients", "yes"][..],
                &["--tls-ca-cert-file", &word(&authority.file())],
                &["--tls-cert-file", &word(&own.certificate), "--tls-key-file", &word(&own.key)],
            ]
            .concat(),
        );
        Self { authority, port, _server: server }
    }

    fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }
}

fn text(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

fn shown(files: &CertificateFiles) -> [(&str, &str); 2] {
    [
        ("MCP_MESSAGING__REDIS__TLS_CERTIFICATE_FILE", text(&files.certificate)),
        ("MCP_MESSAGING__REDIS__TLS_KEY_FILE", text(&files.key)),
    ]
}

#[tokio::test]
async fn replicas_speak_tls_with_a_redis_that_wants_a_certificate() {
    let redis = SafeRedis::start();
    let (ca, own) = (redis.authority.file(), redis.authority.issue("replica"));
    let believes = ("MCP_MESSAGING__REDIS__TLS_CA_FILE", text(&ca));
    let variables = [&[believes][..], &shown(&own)].concat();
    let here = Replica::with(&redis.url(), &variables).await;
    let there = Replica::with(&redis.url(), &variables).await;
    // Over the subscriber's connection as well: somebody waits on the other replica.
    let bob = there.agent("bob");
    let reading = tokio::spawn(async move { bob.texts(30).await });
    there.waiters(1).await;
    here.agent("alice").send("bob", "hello").await;
    assert_eq!(reading.await.unwrap(), ["hello"]);
}

#[tokio::test]
async fn a_redis_that_is_not_to_be_believed_or_does_not_believe_us_is_not_ready_and_says_why() {
    let redis = SafeRedis::start();
    let (ca, own) = (redis.authority.file(), redis.authority.issue("replica"));
    let strangers = Authority::new();
    let (other_ca, other_own) = (strangers.file(), strangers.issue("replica"));
    for (ca, own, said) in
        [(&other_ca, &own, "InvalidCertificate"), (&ca, &other_own, "AlertReceived")]
    {
        let believes = ("MCP_MESSAGING__REDIS__TLS_CA_FILE", text(ca));
        let url = redis.url();
        let variables = [&[("REDIS_URL", url.as_str()), believes][..], &shown(own)].concat();
        let replica = Replica::start(&variables);
        replica.says(said).await;
        assert_eq!(replica.get("/readyz").await.0, 503);
    }
}

#[tokio::test]
async fn the_server_speaks_tls_and_its_probes_do_not() {
    let authority = Authority::new();
    let own = authority.issue("127.0.0.1");
    let replica = Replica::start(&[
        ("MCP_MESSAGING__HTTP__TLS_CERTIFICATE_FILE", text(&own.certificate)),
        ("MCP_MESSAGING__HTTP__TLS_KEY_FILE", text(&own.key)),
        ("MCP_MESSAGING__OPS__LISTEN", "127.0.0.1:0"),
    ]);
    let believes = Arc::new(tls::client(Some(&authority.file()), None).unwrap());
    let mut client = Client::connect_tls(replica.address(), Arc::clone(&believes)).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    client.send(&post("", body)).await;
    assert!(client.reply().await.body.contains("send_message_and_wait"));
    // A client that speaks no TLS gets no answer, and one that believes others none either.
    let mut plain = TcpStream::connect(replica.address()).await.unwrap();
    plain.write_all(post("", body).as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    let ended = timeout(Duration::from_secs(10), plain.read_to_end(&mut rest)).await;
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP"), "{ended:?} {rest:?}");
    assert!(trusts(replica.address(), &authority).await);
    assert!(!trusts(replica.address(), &Authority::new()).await);
}

/// Whether who believes this authority gets to speak TLS with the server.
async fn trusts(address: SocketAddr, authority: &Authority) -> bool {
    let tls = tls::client(Some(&authority.file()), None).unwrap();
    let tcp = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    connector.connect(address.ip().into(), tcp).await.is_ok()
}

#[tokio::test]
async fn a_handshake_that_does_not_come_to_an_end_is_cut_off() {
    let config = HttpConfig { client_request_timeout: Duration::from_millis(300), ..quick() };
    let house = Over::Tls.open(&config);
    let mut client = TcpStream::connect(house.address).await.unwrap();
    client.write_all(&[22, 3, 1]).await.unwrap();
    eventually("accepted", || house.stopper.open() == 1).await;
    let mut rest = Vec::new();
    timeout(Duration::from_secs(10), client.read_to_end(&mut rest)).await.unwrap().unwrap();
    eventually("gone", || house.stopper.open() == 0).await;
    house.close().await;
}

#[test]
fn files_that_cannot_serve_stop_the_start_and_are_named() {
    let authority = Authority::new();
    let own = authority.issue("one");
    let other = authority.issue("two");
    let (missing, ca) = (authority.file().with_extension("missing"), authority.file());
    for (certificate, key, said) in [
        (&missing, &own.key, "No such file"),
        (&own.certificate, &missing, "No such file"),
        (&own.key, &own.key, "no certificate"),
        (&own.certificate, &ca, "no private key"),
        (&own.certificate, &other.key, "is not the key"),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_mcp-messaging"))
            .arg("check-config")
            .env_clear()
            .envs([
                ("MCP_MESSAGING__HTTP__TLS_CERTIFICATE_FILE", text(certificate)),
                ("MCP_MESSAGING__HTTP__TLS_KEY_FILE", text(key)),
                ("MCP_MESSAGING__OPS__LISTEN", "127.0.0.1:0"),
            ])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(told.contains(said) && told.contains("http.tls_certificate_file"), "{told}");
        assert_eq!(told.trim().lines().count(), 1, "{told}");
    }
}
