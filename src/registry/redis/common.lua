-- A live session is "L<header as JSON>\n<record>", one that ended "E<reason>".
-- Header: v version, i and u names of the sid and subject indices ("" without sid), t issued at, x expires at (ms).
local prefix, channel = ARGV[1], ARGV[2]

-- A replica refuses writes, also those without effect, and so does the node of a cluster that keys are leaving: after this
-- nothing is said from half of the truth, not even by a script that finds nothing to write.
local function only_here()
    redis.call('SET', prefix .. ':none', '', 'XX')
end

-- The header of a live session; nothing of one that ended or that nobody knows. A value of another kind, from a newer
-- version perhaps, is an error: what cannot be read has not ended.
local function read(value)
    if not value or string.sub(value, 1, 1) == 'E' then return nil end
    local line_end = string.find(value, '\n', 1, true)
    if string.sub(value, 1, 1) ~= 'L' or not line_end then error('a stored session cannot be read') end
    return cjson.decode(string.sub(value, 2, line_end - 1))
end

-- Why it ended, where that is known: the last of an answer, as nothing ends a list.
local function reason_of(value)
    if value then return string.sub(value, 2) end
    return nil
end

local function keep_for(key, ttl)
    if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
end

-- Whether a logout token has overtaken a session with this header.
local function covered(head, now, tolerance)
    if head.i ~= '' and tonumber(redis.call('GET', head.i .. ':t') or 0) > now then return true end
    local tomb = redis.call('HMGET', head.u .. ':t', 'until', 'iat')
    return tomb[1] and tonumber(tomb[1]) > now and head.t <= tonumber(tomb[2]) + tolerance
end

local function insert(hex, head, value, ttl)
    redis.call('SET', prefix .. ':s:' .. hex, value, 'PX', ttl)
    if head.i ~= '' then redis.call('SADD', head.i, hex); keep_for(head.i, ttl) end
    redis.call('SADD', head.u, hex); keep_for(head.u, ttl)
    redis.call('ZADD', prefix .. ':x', head.x, hex)
end

-- Takes a session out of everything but its own key.
local function detach(hex, head)
    if head.i ~= '' then redis.call('SREM', head.i, hex) end
    redis.call('SREM', head.u, hex)
    redis.call('ZREM', prefix .. ':x', hex)
    redis.call('DEL', prefix .. ':l:' .. hex)
    local bound = prefix .. ':b:' .. hex
    for _, id in ipairs(redis.call('SMEMBERS', bound)) do redis.call('DEL', prefix .. ':d:' .. id) end
    redis.call('DEL', bound)
end

-- Ends a session for good; returns its value, or nothing if it was not live.
local function finish(hex, reason, retention)
    local key = prefix .. ':s:' .. hex
    local value = redis.call('GET', key)
    local head = read(value)
    if not head then return nil end
    redis.call('SET', key, 'E' .. reason, 'PX', retention)
    detach(hex, head)
    redis.call('PUBLISH', channel, hex .. ' ' .. reason)
    return value
end
