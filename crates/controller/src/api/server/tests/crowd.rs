//! Many who ask, who are slow, who ask too much, and who do not read what they are told.

use super::*;

/// A router for the trusted and one for all others, before one controller.
fn routers(limits: &Limits) -> [axum::Router; 2] {
    let (queries, asked) = mpsc::channel(4);
    let (left, _) = oneshot::channel();
    tokio::spawn(controller(asked, left));
    [
        routes::router(Controller::new(queries.clone(), limits.answer)),
        routes::router(Controller::for_many(queries, limits)),
    ]
}

async fn get(router: &axum::Router, uid: u32, path: &str) -> StatusCode {
    let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
    request.extensions_mut().insert(viewer(uid, 0));
    let answer = TowerToHyperService::new(router.clone()).call(request).await;
    answer.unwrap().status()
}

#[tokio::test]
async fn users_who_ask_without_end_keep_the_trusted_waiting_for_nothing() {
    let limits = Limits {
        answer: Duration::from_millis(400),
        turns: 2,
        ..Limits::default()
    };
    let [of_trusted, of_others] = routers(&limits);
    // Nobody answers these; they hold all turns for as long as an answer may take.
    let asking: Vec<_> = (0..20)
        .map(|n| {
            let router = of_others.clone();
            tokio::spawn(async move { get(&router, 1001 + n, "/v1/hosts").await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(
        get(&of_others, 1001, "/v1/jobs").await,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(get(&of_trusted, 0, "/v1/jobs").await, StatusCode::OK);
    for asker in asking {
        assert_eq!(asker.await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(
        get(&of_others, 1001, "/v1/jobs").await,
        StatusCode::OK,
        "all have gone"
    );
}

#[tokio::test]
async fn waiting_for_an_observation_or_for_nodes_takes_nobodys_turn() {
    let limits = Limits {
        turns: 1,
        gather: Duration::from_millis(1),
        ..Limits::default()
    };
    let [_, of_others] = routers(&limits);
    let waiting = {
        let router = of_others.clone();
        // Never answered.
        tokio::spawn(async move { get(&router, 1001, "/v1/jobs/3/ready?timeout_ms=60000").await })
    };
    for _ in 0..50 {
        assert_eq!(get(&of_others, 1002, "/v1/explain/2").await, StatusCode::OK);
    }
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_his_answers_is_put_out() {
    const QUESTIONS: usize = 20_000;
    let limits = Limits {
        taking: Duration::from_millis(300),
        ..Limits::default()
    };
    let (_dir, socket, _gone) = served(limits);
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // More than fits between the two: from some point on nothing is taken from him either.
    let question = b"GET /v1/events?limit=1000 HTTP/1.1\r\nHost: t\r\n\r\n".repeat(QUESTIONS);
    let cut_off = stream.write_all(&question).unwrap_err();
    assert_eq!(
        cut_off.kind(),
        std::io::ErrorKind::BrokenPipe,
        "not by our own patience"
    );
    let mut answers = Vec::new();
    let _ = stream.read_to_end(&mut answers);
    assert!(answers.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_again_and_again_stays() {
    let limits = Limits {
        taking: Duration::from_millis(200),
        ..Limits::default()
    };
    let (_dir, socket, _gone) = served(limits);
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(700) {
        stream
            .write_all(b"GET /version HTTP/1.1\r\nHost: t\r\n\r\n")
            .unwrap();
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0, "he was put out");
    }
    // One who waits for the controller is not put out either.
    stream
        .write_all(b"GET /v1/jobs/3/ready?timeout_ms=700 HTTP/1.1\r\nHost: t\r\n\r\n")
        .unwrap();
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 503"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slow_the_big_and_the_many_are_turned_away() {
    let limits = Limits {
        head: Duration::from_millis(300),
        connections: 2,
        ..Limits::default()
    };
    let (_dir, socket, _gone) = served(limits);
    let connect = || {
        let stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream
    };
    let read = |mut stream: std::os::unix::net::UnixStream| {
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    // Two who say nothing fill the house; the third is told so; then they are put out.
    let (first, second) = (connect(), connect());
    std::thread::sleep(Duration::from_millis(50));
    let third = read(connect());
    assert!(
        third.starts_with("HTTP/1.1 503") && third.contains("too many connections"),
        "{third}"
    );
    assert_eq!((read(first), read(second)), (String::new(), String::new()));

    let mut big = connect();
    let _ = big.write_all(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_HEAD + 1)).as_bytes());
    let answer = read(big);
    assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");

    let mut many = connect();
    let headers = "A: b\r\n".repeat(MAX_HEADERS + 1);
    many.write_all(format!("GET /version HTTP/1.1\r\n{headers}\r\n").as_bytes())
        .unwrap();
    let answer = read(many);
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}
