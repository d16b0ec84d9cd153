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
	// placesPatience is the time limit of an answer, with the wait for a connection.
	placesPatience = 10 * time.Second
	placesConnect  = 3 * time.Second
	placesIdle     = 60 * time.Second
	// maxPlacesConnections is the greatest number of open connections.
	maxPlacesConnections = 16
	maxBodyBytes         = 2 * 1024 * 1024
	// leastKeyBytes: a shorter key would be found in many good answers by chance. Google's have 39
	// characters.
	leastKeyBytes = 8
)

// places asks Google Places over HTTPS (the legacy Nearby Search). net/http keeps connections and
// uses them again. It also retries once when a kept connection was closed while idle.
type places struct {
	client *http.Client
	origin string
	key    string

	mutex sync.Mutex
	calls map[string]*call // requests under way
}

// call is one request for all clients that wait for it.
type call struct {
	done   chan struct{}
	answer answer
}

// answer is Google's own text, or why there is none, as advice for a client.
type answer struct {
	text []byte
	err  error
}

func newPlaces(origin, caFile, key string) (*places, error) {
	origin = strings.TrimRight(origin, "/")
	if u, err := url.Parse(origin); err != nil || u.Scheme != "https" || u.Host == "" || u.Path != "" {
		return nil, fmt.Errorf("--places-url %q is not https://host[:port]", origin)
	}
	var roots *x509.CertPool // nil stands for the system's
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

// ask asks Places, or waits for the same question of another client. Answers are shared, but not
// cached.
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

// inWords turns an error into advice for a client. net/http's errors begin with the URL, which
// contains the key. So the URL is left out.
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

// judge accepts Google's text with status 200, and its JSON of an error. A response that contains
// the key is refused: an error page of a proxy could repeat it.
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

// source is the source of the answer, for the log.
func (a answer) source() string {
	if a.err != nil {
		return "an error of our own"
	}
	return "from Places"
}

// json is the JSON with at most bound places.
func (a answer) json(bound int) []byte {
	if a.err == nil {
		return withoutBlankLines(cut(a.text, bound))
	}
	message, _ := json.Marshal(a.err.Error()) // A string is always valid JSON.
	return []byte(fmt.Sprintf(`{"html_attributions" : [], "results" : [], "status" : "UNKNOWN_ERROR", "error_message" : %s}`, message))
}

// cut returns Google's text, a JSON object, with at most bound elements in its list of results.
// Google's layout varies, so the text is cut and not written anew. The decoder only finds the ends
// of the elements.
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

// elementEnds returns the end of each element of a JSON list.
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

// withoutBlankLines reduces each run of newlines to one, and removes those at both ends. An empty
// line would end the answer.
func withoutBlankLines(text []byte) []byte {
	return newlines.ReplaceAll(bytes.Trim(text, "\r\n"), []byte("$1"))
}
