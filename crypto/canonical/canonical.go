// Package canonical reads and writes the one encoding that everything hashed or signed here has: protobuf with a single
// permitted form for every message.
//
// The rules are those of ADR-027 made strict: fields in ascending order, each at most once unless it is repeated, varints
// minimal, no field that holds its default, nothing unknown, nothing behind the end. Whatever [Reader] accepts, [Writer]
// writes back byte for byte; the published .proto files generate the same bytes in every language.
//
// The schema uses bytes, string, uint32, uint64, bool, messages, oneof and repeated bytes or messages, and nothing else.
// The package holds no state; a Reader or Writer belongs to one goroutine.
package canonical

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Error is what a decoder returns for input that is not canonical. It names the field as a path, as "body.signers[2].nonce".
type Error struct {
	Field string
	What  string
}

func (e *Error) Error() string {
	if e.Field == "" {
		return e.What
	}
	return e.Field + ": " + e.What
}

// Errorf makes an Error for a field.
func Errorf(field, format string, args ...any) error {
	return &Error{Field: field, What: fmt.Sprintf(format, args...)}
}

// In puts a decoder's error below the field that held the message, so that the path reads from the outside in.
func In(field string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		if e.Field == "" {
			return &Error{Field: field, What: e.What}
		}
		return &Error{Field: field + "." + e.Field, What: e.What}
	}
	return &Error{Field: field, What: err.Error()}
}

// Reader walks the fields of one message. It keeps the first error and answers zero values from then on, so that a
// decoder reads as a list of fields and asks [Reader.Close] once, at the end.
//
// Fields must be asked for in ascending order of their numbers. Byte slices that it returns point into the input.
type Reader struct {
	rest []byte
	next protowire.Number // number of the field at the head of rest, 0 when rest is empty or err is set
	kind protowire.Type
	last protowire.Number
	err  error
}

// NewReader begins to read one message.
func NewReader(message []byte) *Reader {
	r := &Reader{rest: message}
	r.peek()
	return r
}

// peek reads the tag at the head of rest. Tags must ascend; equal numbers pass here and are stopped by the readers of
// fields that are not repeated.
func (r *Reader) peek() {
	r.next = 0
	if r.err != nil || len(r.rest) == 0 {
		return
	}
	tag, n := protowire.ConsumeVarint(r.rest)
	if n < 0 {
		r.Fail("", "truncated tag")
		return
	}
	if n != protowire.SizeVarint(tag) {
		r.Fail("", "tag is not a minimal varint")
		return
	}
	number, kind := protowire.DecodeTag(tag)
	if number < 1 {
		r.Fail("", "invalid field number")
		return
	}
	if number < r.last {
		r.Fail("", "field %d stands after field %d", number, r.last)
		return
	}
	r.rest, r.next, r.kind, r.last = r.rest[n:], number, kind, number
}

// Fail records an error, unless an earlier one is recorded.
func (r *Reader) Fail(field, format string, args ...any) {
	if r.err == nil {
		r.err = Errorf(field, format, args...)
		r.next = 0
	}
}

// Failed tells whether an error is recorded.
func (r *Reader) Failed() bool { return r.err != nil }

// Next returns the number of the field at the head, 0 at the end. It is how a decoder tells the arms of a oneof apart.
func (r *Reader) Next() int { return int(r.next) }

// take consumes the value of a field that is at the head.
func (r *Reader) take(number protowire.Number, field string, want protowire.Type) (value []byte, varint uint64, ok bool) {
	if r.err != nil || r.next != number {
		return nil, 0, false
	}
	if r.kind != want {
		r.Fail(field, "wire type %d, want %d", r.kind, want)
		return nil, 0, false
	}
	switch want {
	case protowire.VarintType:
		v, n := protowire.ConsumeVarint(r.rest)
		if n < 0 {
			r.Fail(field, "truncated varint")
			return nil, 0, false
		}
		if n != protowire.SizeVarint(v) {
			r.Fail(field, "not a minimal varint")
			return nil, 0, false
		}
		r.rest = r.rest[n:]
		return nil, v, true
	default:
		size, n := protowire.ConsumeVarint(r.rest)
		if n < 0 {
			r.Fail(field, "truncated length")
			return nil, 0, false
		}
		if n != protowire.SizeVarint(size) {
			r.Fail(field, "length is not a minimal varint")
			return nil, 0, false
		}
		if size > uint64(len(r.rest)-n) {
			r.Fail(field, "length %d passes the end of the message", size)
			return nil, 0, false
		}
		value = r.rest[n : n+int(size) : n+int(size)]
		r.rest = r.rest[n+int(size):]
		return value, 0, true
	}
}

// single consumes a field that may stand once, and refuses a second one right behind it.
func (r *Reader) single(number int, field string, want protowire.Type) (value []byte, varint uint64, ok bool) {
	value, varint, ok = r.take(protowire.Number(number), field, want)
	if !ok {
		return nil, 0, false
	}
	r.peek()
	if r.next == protowire.Number(number) {
		r.Fail(field, "stands twice")
		return nil, 0, false
	}
	return value, varint, true
}

// Uint64 reads an optional uint64; 0 when it is absent.
func (r *Reader) Uint64(number int, field string) uint64 {
	_, v, ok := r.single(number, field, protowire.VarintType)
	if ok && v == 0 {
		r.Fail(field, "explicit default")
	}
	return v
}

// Uint32 reads an optional uint32; 0 when it is absent.
func (r *Reader) Uint32(number int, field string) uint32 {
	v := r.Uint64(number, field)
	if v > 1<<32-1 {
		r.Fail(field, "%d does not fit 32 bits", v)
		return 0
	}
	return uint32(v)
}

// Bool reads an optional bool.
func (r *Reader) Bool(number int, field string) bool {
	v := r.Uint64(number, field)
	if v > 1 {
		r.Fail(field, "%d is not a bool", v)
		return false
	}
	return v == 1
}

// Bytes reads optional bytes of at most limit bytes; nil when they are absent.
func (r *Reader) Bytes(number int, field string, limit int) []byte {
	v, _, ok := r.single(number, field, protowire.BytesType)
	if !ok {
		return nil
	}
	if len(v) == 0 {
		r.Fail(field, "explicit default")
		return nil
	}
	if len(v) > limit {
		r.Fail(field, "%d bytes, at most %d", len(v), limit)
		return nil
	}
	return v
}

// Fixed reads required bytes of an exact length into dst.
func (r *Reader) Fixed(number int, field string, dst []byte) {
	if r.err != nil {
		return
	}
	v, _, ok := r.single(number, field, protowire.BytesType)
	if r.err != nil {
		return
	}
	if !ok {
		r.Fail(field, "missing, want %d bytes", len(dst))
		return
	}
	if len(v) != len(dst) {
		r.Fail(field, "%d bytes, want %d", len(v), len(dst))
		return
	}
	copy(dst, v)
}

// OptionalFixed is Fixed for a field that may be absent; it tells whether it stood there.
func (r *Reader) OptionalFixed(number int, field string, dst []byte) bool {
	if r.err != nil || r.next != protowire.Number(number) {
		return false
	}
	r.Fixed(number, field, dst)
	return r.err == nil
}

// String reads optional text of at most limit bytes, which must be valid UTF-8.
func (r *Reader) String(number int, field string, limit int) string {
	v := r.Bytes(number, field, limit)
	if !utf8.Valid(v) {
		r.Fail(field, "not valid UTF-8")
		return ""
	}
	return string(v)
}

// Message reads an optional sub-message. An empty message is a value of its own, so it may stand there with length 0.
func (r *Reader) Message(number int, field string) (message []byte, present bool) {
	v, _, ok := r.single(number, field, protowire.BytesType)
	return v, ok
}

// Repeated reads the elements of a repeated bytes or message field, calling each with the index and the element.
// More than limit elements are an error. An error of each is recorded below "field[index]".
func (r *Reader) Repeated(number int, field string, limit int, each func(index int, element []byte) error) {
	for i := 0; r.err == nil && r.next == protowire.Number(number); i++ {
		if i == limit {
			r.Fail(field, "more than %d", limit)
			return
		}
		v, _, ok := r.take(protowire.Number(number), field, protowire.BytesType)
		if !ok {
			return
		}
		if err := each(i, v); err != nil {
			r.err = In(fmt.Sprintf("%s[%d]", field, i), err)
			r.next = 0
			return
		}
		r.peek()
	}
}

// Close returns the first error, or the one for a field that nobody asked for.
func (r *Reader) Close() error {
	if r.err == nil && r.next != 0 {
		r.Fail("", "unknown field %d", r.next)
	}
	return r.err
}

// Writer appends fields to a message. Callers write in ascending order of the field numbers; defaults write nothing.
type Writer struct{ buf []byte }

// NewWriter begins a message that is appended to buf, which may be nil.
func NewWriter(buf []byte) *Writer { return &Writer{buf: buf} }

// Done returns the message.
func (w *Writer) Done() []byte { return w.buf }

// Uint64 writes v unless it is 0.
func (w *Writer) Uint64(number int, v uint64) {
	if v != 0 {
		w.buf = protowire.AppendTag(w.buf, protowire.Number(number), protowire.VarintType)
		w.buf = protowire.AppendVarint(w.buf, v)
	}
}

// Uint32 writes v unless it is 0.
func (w *Writer) Uint32(number int, v uint32) { w.Uint64(number, uint64(v)) }

// Bool writes v unless it is false.
func (w *Writer) Bool(number int, v bool) {
	if v {
		w.Uint64(number, 1)
	}
}

// Bytes writes v unless it is empty.
func (w *Writer) Bytes(number int, v []byte) {
	if len(v) != 0 {
		w.Message(number, v)
	}
}

// String writes v unless it is empty.
func (w *Writer) String(number int, v string) {
	if v != "" {
		w.buf = protowire.AppendTag(w.buf, protowire.Number(number), protowire.BytesType)
		w.buf = protowire.AppendString(w.buf, v)
	}
}

// Message writes a sub-message or an element of a repeated field, also when it is empty.
func (w *Writer) Message(number int, v []byte) {
	w.buf = protowire.AppendTag(w.buf, protowire.Number(number), protowire.BytesType)
	w.buf = protowire.AppendBytes(w.buf, v)
}
