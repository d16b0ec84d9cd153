package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// placesPatience is the time for an answer, waiting for a connection included.
	placesPatience = 10 * time.Second
	placesConnect  = 3 * time.Second
	placesIdle     = 60 * time.Second
	// maxPlacesConnections are open at once.
	maxPlacesConnections = 16
	maxBodyBytes         = 2 * 1024 * 1024
	// leastKeyBytes: a shorter key would be found in many an innocent answer; Google's have 39 characters.
	leastKeyBytes = 8
)

// places asks Google Places over HTTPS (the legacy Nearby Search). net/http keeps the connections and uses them again, and asks once
// more if one of them died idle.
type places struct {
	client *http.Client
	origin string
	key    string

	mutex sync.Mutex
	calls map[string]*call // those that are out
}

// call is one question, for all who are asking it at the time.
type call struct {
	done   chan struct{}
	answer answer
}

// answer is Google's own text, or why there is none, in words that a client can act on.
type answer struct {
	text []byte
	err  error
}

func newPlaces(origin, caFile, key string) (*places, error) {
	origin = strings.TrimRight(origin, "/")
	if u, err := url.Parse(origin); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" {
		return nil, fmt.Errorf("--places-url %q is not https://host[:port]", origin)
	}
	var roots *x509.CertPool // nil: the system's
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("--places-ca: %w", err)
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--places-ca %s: there is no certificate in it", caFile)
		}
	}
	return &places{
		client: &http.Client{
			Timeout: placesPatience,
			Transport: &http.Transport{
				DialContext:         (&net.Dialer{Timeout: placesConnect}).DialContext,
				TLSClientConfig:     &tls.Config{RootCAs: roots},
				TLSHandshakeTimeout: 4 * time.Second,
				IdleConnTimeout:     placesIdle,
				MaxConnsPerHost:     maxPlacesConnections,
				MaxIdleConnsPerHost: maxPlacesConnections,
				DisableCompression:  true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		origin: origin,
		key:    key,
		calls:  map[string]*call{},
	}, nil
}

// ask asks, or joins those who are asking the same. Answers are shared, but not kept.
func (p *places) ask(question string) answer {
	if p.key == "" {
		return answer{err: errors.New("this server has no key for Google Places; its operator can give it one (HERD_PLACES_KEY)")}
	}
	p.mutex.Lock()
	c, isOut := p.calls[question]
	if !isOut {
		c = &call{done: make(chan struct{})}
		p.calls[question] = c
	}
	p.mutex.Unlock()
	if isOut {
		<-c.done
		return c.answer
	}

	began := time.Now()
	c.answer.text, c.answer.err = p.fetch(question)
	took := time.Since(began).Seconds()
	if c.answer.err != nil {
		logWarn("places call %s: %v (%.6f s)", question, c.answer.err, took)
	} else {
		logInfo("places call %s: %d bytes in %.6f s", question, len(c.answer.text), took)
	}
	p.mutex.Lock()
	delete(p.calls, question)
	p.mutex.Unlock()
	close(c.done)
	return c.answer
}

func (p *places) fetch(question string) ([]byte, error) {
	query := question + "&key=" + url.QueryEscape(p.key)
	request, err := http.NewRequest("GET", p.origin+"/maps/api/place/nearbysearch/json?"+query, nil)
	if err != nil {
		return nil, errors.New("the key for Google Places cannot be sent")
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "herd-go/0.1.0")
	response, err := p.client.Do(request)
	if err != nil {
		return nil, inWords(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBodyBytes+1))
	if err == nil && len(body) > maxBodyBytes {
		err = errors.New("its answer was too large")
	}
	if err != nil {
		return nil, inWords(err)
	}
	return p.judge(response.StatusCode, body)
}

// inWords says what went wrong in words that a client can act on. The address that was asked, which net/http puts in front of its
// errors, has the key in it and is left out.
func inWords(err error) error {
	if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("Google Places did not answer in time; try again later")
	}
	if outer := (*url.Error)(nil); errors.As(err, &outer) {
		err = outer.Err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it closed the connection")
	}
	if strings.Contains(err.Error(), "x509") {
		const advice = "its operator has to look at the certificate authority that it trusts (--places-ca)"
		return fmt.Errorf("Google Places cannot be reached: %w; %s", err, advice)
	}
	if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
		return fmt.Errorf("Google Places cannot be reached: %w; try again later", err)
	}
	return fmt.Errorf("Google Places gave no answer that can be used: %w; try again later", err)
}

// judge says whether a response is an answer: what Google says with 200, and what it says in JSON of an error. Nothing that repeats
// the key, as something between Google and us might in an error page, is one.
func (p *places) judge(status int, body []byte) ([]byte, error) {
	switch {
	case len(p.key) >= leastKeyBytes && bytes.Contains(body, []byte(p.key)):
		return nil, fmt.Errorf("Google Places answered with HTTP status %d, and something that may not be shown", status)
	case (status == 200 || 400 <= status && status <= 599) && isObject(body):
		return body, nil
	case status == 200:
		return nil, errors.New("Google Places answered with something that is not JSON; try again later")
	}
	return nil, fmt.Errorf("Google Places answered with HTTP status %d; try again later", status)
}

func isObject(text []byte) bool {
	return utf8.Valid(text) && json.Valid(text) && bytes.TrimLeft(text, " \t\r\n")[0] == '{'
}

// source says whose words they are, for the log.
func (a answer) source() string {
	if a.err != nil {
		return "an error of our own"
	}
	return "from Places"
}

// json is the answer for a client that wants at most bound places.
func (a answer) json(bound int) []byte {
	if a.err == nil {
		return withoutBlankLines(cut(a.text, bound))
	}
	message, _ := json.Marshal(a.err.Error()) // a string always is JSON
	return []byte(fmt.Sprintf(`{"html_attributions" : [], "results" : [], "status" : "UNKNOWN_ERROR", "error_message" : %s}`, message))
}

// cut is Google's text, a JSON object, with at most bound elements in its list of results. Its layout varies, so it is cut, never
// written anew: the decoder only says where an element ends.
func cut(text []byte, bound int) []byte {
	kept, from := []byte(nil), 0
	object := json.NewDecoder(bytes.NewReader(text))
	object.Token() // {
	for object.More() {
		key, _ := object.Token()
		var value json.RawMessage
		if object.Decode(&value) != nil {
			return text
		}
		if key != "results" || value[0] != '[' {
			continue
		}
		start := int(object.InputOffset()) - len(value)
		ends := elementEnds(value)
		if len(ends) > bound {
			kept = append(kept, text[from:start+ends[bound-1]]...)
			from = start + ends[len(ends)-1]
		}
	}
	return append(kept, text[from:]...)
}

// elementEnds says where each element of a JSON list ends.
func elementEnds(list []byte) (ends []int) {
	elements := json.NewDecoder(bytes.NewReader(list))
	elements.Token() // [
	for elements.More() {
		var element json.RawMessage
		if elements.Decode(&element) != nil {
			break
		}
		ends = append(ends, int(elements.InputOffset()))
	}
	return ends
}

var newlines = regexp.MustCompile(`(\r\n|[\r\n])[\r\n]*`)

// withoutBlankLines has each run of newlines as one, and none at either end: an empty line ends an answer.
func withoutBlankLines(text []byte) []byte {
	return newlines.ReplaceAll(bytes.Trim(text, "\r\n"), []byte("$1"))
}
