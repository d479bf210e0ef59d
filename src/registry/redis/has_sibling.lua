-- KEYS: the index of a sid or a subject. ARGV: hex of the session whose siblings are asked for
only_here()
for _, hex in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    if hex ~= ARGV[3] and read(redis.call('GET', prefix .. ':s:' .. hex)) then return {'yes'} end
end
return {'no'}
