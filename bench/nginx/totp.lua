-- The seed's POST in Lua: key, per-minute limit, TOTP, envelope and headers, as a careful nginx operator would write
-- it: every library function held in a local, no closure and no table built for a request beyond those of cjson,
-- static headers left to nginx itself, and the text of the expiry kept while the period lasts.
-- Where Polygate does more (other formats, forms, burst and refill, its own secret handling) this does less.

local bit = require "bit"
local cjson = require "cjson.safe"
local ffi = require "ffi"

local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local byte, char, find, format, gsub = string.byte, string.char, string.find, string.format, string.gsub
local floor = math.floor
local decode = cjson.decode
local hmac_sha1, now, header, say, req = ngx.hmac_sha1, ngx.now, ngx.header, ngx.print, ngx.req
local minutes = ngx.shared.minutes

-- nginx is linked with OpenSSL: its one-shot hash is the cheapest SHA-256 in reach.
ffi.cdef [[ unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md); ]]
local digest = ffi.new("unsigned char[32]")

local LIMIT = 1000000000
local POLICY = format('"minute";q=%d;w=60', LIMIT)

local M = {}

-- Key hash, 32 raw bytes → true. 1,000 of them.
local keys = {}
for line in io.lines(ngx.config.prefix() .. "keys.sha256") do
    local hash = gsub(line, "%x%x", function(pair) return char(tonumber(pair, 16)) end)
    keys[hash] = true
end

-- Base32 letter, either case → its five bits; the signs that are passed over → -1.
local bits_of = {}
for index = 1, 32 do
    local letter = string.sub("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", index, index)
    bits_of[byte(letter)] = index - 1
    bits_of[byte(string.lower(letter))] = index - 1
end
for _, letter in ipairs({ " ", "-", "=", "\t", "\r", "\n" }) do
    bits_of[byte(letter)] = -1
end
local SECRET_MAX = 1024
local key_bytes = ffi.new("unsigned char[?]", SECRET_MAX)

local function refuse(status, text)
    ngx.status = status
    header["Content-Type"] = "application/json"
    say('{"status":"error","error":"', text, '","data":null}')
end

-- The bytes of a base32 secret, or nil.
local function secret_bytes(secret)
    if #secret > SECRET_MAX then
        return nil
    end
    local length, held, bits = 0, 0, 0
    for index = 1, #secret do
        local five = bits_of[byte(secret, index)]
        if not five then
            return nil
        end
        if five >= 0 then
            held = bor(lshift(held, 5), five)
            bits = bits + 5
            if bits >= 8 then
                bits = bits - 8
                key_bytes[length] = rshift(held, bits)
                length = length + 1
                held = band(held, lshift(1, bits) - 1)
            end
        end
    end
    return ffi.string(key_bytes, length)
end

-- RFC 4226 section 5.3, for a counter below 2^53.
local function hotp(key, counter, digits)
    local high, low = floor(counter / 4294967296), counter % 4294967296
    local mac = hmac_sha1(key, char(
        band(rshift(high, 24), 255), band(rshift(high, 16), 255), band(rshift(high, 8), 255), band(high, 255),
        band(rshift(low, 24), 255), band(rshift(low, 16), 255), band(rshift(low, 8), 255), band(low, 255)))
    local offset = band(byte(mac, 20), 15)
    local one, two, three, four = byte(mac, offset + 1, offset + 4)
    local number = bor(lshift(band(one, 127), 24), lshift(two, 16), lshift(three, 8), four)
    if digits == 6 then
        return format("%06d", number % 1000000)
    elseif digits == 7 then
        return format("%07d", number % 10000000)
    end
    return format("%08d", number % 100000000)
end

-- The text of a moment. Calls for the same moment follow each other for a whole period: keep the last.
local last_moment, last_text
local function rfc3339(moment)
    if moment ~= last_moment then
        last_moment, last_text = moment, os.date("!%Y-%m-%dT%H:%M:%SZ", moment)
    end
    return last_text
end

-- A whole number within bounds, the default where it is absent, or nil.
local function whole(value, default, least, most)
    if value == nil or value == cjson.null then
        return default
    end
    value = tonumber(value)
    if value and value == floor(value) and value >= least and value <= most then
        return value
    end
    return nil
end

function M.answer()
    local id = ngx.var.http_x_request_id
    if not id or #id > 128 or find(id, "[^%w._-]") then
        id = ngx.var.request_id
    end
    header["X-Request-ID"] = id

    local key = ngx.var.http_x_api_key
    if not key then
        header["WWW-Authenticate"] = "ApiKey"
        return refuse(401, "API key is required")
    end
    ffi.C.SHA256(key, #key, digest)
    local hash = ffi.string(digest, 32)
    if not keys[hash] then
        header["WWW-Authenticate"] = "ApiKey"
        return refuse(401, "Invalid API key")
    end

    -- The hash's entry counts the calls of this minute; it leaves the dictionary with its minute.
    local time = now()
    local reset = 60 - floor(time) % 60
    local count = minutes:incr(hash, 1, 0, reset)
    local remaining = LIMIT - count
    header["X-RateLimit-Limit"] = LIMIT
    header["X-RateLimit-Remaining"] = remaining < 0 and 0 or remaining
    header["X-RateLimit-Reset"] = reset
    header["RateLimit-Policy"] = POLICY
    header["RateLimit"] = format('"minute";r=%d;t=%d', remaining < 0 and 0 or remaining, reset)
    if remaining < 0 then
        header["Retry-After"] = reset
        return refuse(429, format("Rate limit exceeded. Max %d requests per minute. Try again in %d seconds.", LIMIT, reset))
    end

    req.read_body()
    local body = req.get_body_data()
    local input = body and decode(body)
    if type(input) ~= "table" then
        return refuse(400, "Invalid request body: not a JSON object")
    end
    local secret = input.secret
    if type(secret) ~= "string" or secret == "" then
        return refuse(400, "Missing secret parameter")
    end
    local bytes = secret_bytes(secret)
    if not bytes then
        return refuse(400, "Invalid secret format. Must contain only A-Z and 2-7 (base32).")
    end
    local digits = whole(input.digits, 6, 6, 8)
    if not digits then
        return refuse(400, "Invalid digits. Must be between 6 and 8.")
    end
    local period = whole(input.period, 30, 1, 300)
    if not period then
        return refuse(400, "Invalid period. Must be between 1 and 300 seconds.")
    end

    local seconds = floor(time)
    local counter = floor(seconds / period)
    local expires = (counter + 1) * period
    local answer = format(
        '{"status":"ok","error":null,"data":{"token":"%s","digits":%d,"period":%d,"timeRemaining":%d,"expiresAt":"%s"}}',
        hotp(bytes, counter, digits), digits, period, expires - seconds, rfc3339(expires))
    header["Content-Length"] = #answer
    return say(answer)
end

return M
